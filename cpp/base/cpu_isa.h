// Which kernels this process uses.
#pragma once

#include <string>
#include <vector>

namespace specdec {

// Of one architecture, a later one is faster.
enum class CpuIsa {
#define SPECDEC_ISA(id, ...) id,
#include "base/isa.def"
};

[[nodiscard]] const char* cpu_isa_name(CpuIsa isa);  // "avx512_vnni"

// What this machine can run, slowest first.
[[nodiscard]] std::vector<CpuIsa> supported_cpu_isas();

// The best one, or what SPECDEC_CPU_ISA asks for; decided once per process.
// Throws Error(kInvalidArgument) when that is unknown, or when this machine cannot run it: with
// what it lacks and what it can run.
[[nodiscard]] CpuIsa active_cpu_isa();

// Parses a name; throws as above.
[[nodiscard]] CpuIsa parse_cpu_isa(const std::string& name);

}  // namespace specdec
