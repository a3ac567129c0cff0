#include "base/cpu_isa.h"

#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "base/system.h"

// A build of the portable kernels alone (SPECDEC_SCALAR_ONLY) asks no processor.
#if defined(__x86_64__) && !defined(SPECDEC_SCALAR_ONLY)
#include <cpuid.h>

// The registers that the operating system saves: XCR0. A function of its own, and with this name,
// for tools/check_isa.py: nothing else may use what the first x86-64 processors lack. Only with
// OSXSAVE.
extern "C" __attribute__((noinline, visibility("hidden"))) std::uint64_t specdec_saved_registers() {
  std::uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}
#endif

namespace specdec {
namespace {

using Names = std::vector<const char*>;

[[maybe_unused]] constexpr const char* kLeftOut = "kernels that were left out of this build";

[[maybe_unused]] bool is_arm(CpuIsa isa) {
  return isa == CpuIsa::kNeonDotprod || isa == CpuIsa::kNeonI8mm;
}

// Everything that target.h lets the compiler use for an instruction set and this machine lacks.
#if defined(SPECDEC_SCALAR_ONLY)
Names missing_features(CpuIsa isa) { return isa == CpuIsa::kScalar ? Names{} : Names{kLeftOut}; }
#elif defined(__x86_64__)

// What the processor has and the operating system saves. By cpuid, since the compilers' own answer,
// __builtin_cpu_supports(), differs: clang before 19 does not know all names, and with the run-time
// library of zig it says no to all.
struct Processor {
  unsigned a1 = 0, b1 = 0, c1 = 0, d1 = 0;  // leaf 1
  unsigned a7 = 0, b7 = 0, c7 = 0, d7 = 0;  // leaf 7
  unsigned more = 0, b = 0, c = 0, d = 0;   // leaf 7, the second part
  unsigned tile = 0, tiles = 0, rows = 0;   // leaf 0x1D: sizes of the tile registers
  std::uint64_t saved = 0;                  // XCR0

  Processor() {
    (void)__get_cpuid(1, &a1, &b1, &c1, &d1);
    (void)__get_cpuid_count(7, 0, &a7, &b7, &c7, &d7);
    if (a7 >= 1) (void)__get_cpuid_count(7, 1, &more, &b, &c, &d);
    unsigned unused = 0;
    (void)__get_cpuid_count(0x1D, 1, &tile, &tiles, &rows, &unused);
    constexpr unsigned kOsxsave = 1U << 27;
    if ((c1 & kOsxsave) != 0) saved = specdec_saved_registers();
  }
  [[nodiscard]] bool saves_ymm() const { return (saved & 0x06) == 0x06; }
  [[nodiscard]] bool saves_zmm() const { return (saved & 0xE6) == 0xE6; }
  // And has eight of 16 rows of 64 bytes.
  [[nodiscard]] bool saves_tiles() const {
    return (saved & 0x60000) == 0x60000 && tile >> 16 >= 1024 && (tiles & 0xFFFF) >= 64 &&
           tiles >> 16 >= 8 && (rows & 0xFFFF) >= 16;
  }
};

bool bit(unsigned word, int n) { return ((word >> n) & 1U) != 0; }

Names missing_features(CpuIsa isa) {
  Names out;
  if (is_arm(isa)) return {"a 64-bit Arm processor"};
  if (isa == CpuIsa::kScalar) return out;
  const Processor has;
  const auto need = [&](bool found, const char* feature) {
    if (!found) out.push_back(feature);
  };
  const bool ymm = has.saves_ymm() && bit(has.c1, 28);
  need(ymm, "avx");
  need(ymm && bit(has.b7, 5), "avx2");
  need(ymm && bit(has.c1, 12), "fma");
  need(ymm && bit(has.c1, 29), "f16c");
  need(bit(has.b7, 8), "bmi2");
  need(bit(has.c1, 23), "popcnt");
#if SPECDEC_STAND_IN
  if (isa == CpuIsa::kAvxVnniInt8) return out;
#endif
  const bool int8 = isa == CpuIsa::kAvxVnniInt8;
  if (int8 || isa == CpuIsa::kAvxVnni) need(ymm && bit(has.more, 4), "avxvnni");
  if (int8) need(ymm && bit(has.d, 4), "avxvnniint8");
#if !defined(SPECDEC_AVXVNNIINT8)
  if (int8) out.push_back(kLeftOut);
#endif
  if (isa == CpuIsa::kAvx512Vnni || isa == CpuIsa::kAmxInt8) {
    const bool zmm = has.saves_zmm() && bit(has.b7, 16);
    need(zmm, "avx512f");
    need(zmm && bit(has.b7, 30), "avx512bw");
    need(zmm && bit(has.b7, 31), "avx512vl");
    need(zmm && bit(has.b7, 17), "avx512dq");
    need(zmm && bit(has.c7, 11), "avx512vnni");
  }
  if (isa == CpuIsa::kAmxInt8) {
    need(has.saves_tiles() && bit(has.d7, 24), "amx-tile");
    need(has.saves_tiles() && bit(has.d7, 25), "amx-int8");
    // The system is asked for them last: its yes makes signal frames larger.
    if (out.empty()) need(may_use_tiles(), "the system's permission to use tile registers");
  }
  return out;
}
#elif defined(__aarch64__)
Names missing_features(CpuIsa isa) {
  if (isa == CpuIsa::kScalar) return {};
  if (!is_arm(isa)) return {"an x86-64 processor"};
  return missing_arm_features(isa == CpuIsa::kNeonI8mm);
}
#else
Names missing_features(CpuIsa isa) {
  return isa == CpuIsa::kScalar ? Names{} : Names{"another processor architecture"};
}
#endif

constexpr CpuIsa kAllIsas[] = {
#define SPECDEC_ISA(id, ...) CpuIsa::id,
#include "base/isa.def"
};

std::string joined(const Names& names) {
  std::string out;
  for (const char* name : names) out += std::string(out.empty() ? "" : ", ") + name;
  return out;
}

}  // namespace

const char* cpu_isa_name(CpuIsa isa) {
  switch (isa) {
#define SPECDEC_ISA(id, space, name, ...) \
  case CpuIsa::id:                        \
    return name;
#include "base/isa.def"
  }
  return "?";
}

std::vector<CpuIsa> supported_cpu_isas() {
  std::vector<CpuIsa> out;
  for (const CpuIsa isa : kAllIsas) {
    if (missing_features(isa).empty()) out.push_back(isa);
  }
  return out;
}

CpuIsa parse_cpu_isa(const std::string& name) {
  Names valid;
  std::string why = "is unknown";
  for (const CpuIsa isa : kAllIsas) {
    if (name != cpu_isa_name(isa)) continue;
    const Names missing = missing_features(isa);
    if (missing.empty()) return isa;
    why = "needs what is missing here: " + joined(missing);
  }
  for (const CpuIsa isa : supported_cpu_isas()) valid.push_back(cpu_isa_name(isa));
  throw_invalid("SPECDEC_CPU_ISA: '" + printable(name) + "' " + why +
                "; this machine can run: " + joined(valid));
}

CpuIsa active_cpu_isa() {
  static const CpuIsa isa = [] {
    const char* forced = std::getenv("SPECDEC_CPU_ISA");
    if (forced != nullptr && *forced != '\0') return parse_cpu_isa(forced);
    return supported_cpu_isas().back();
  }();
  return isa;
}

}  // namespace specdec
