#include "base/cpu_isa.h"

#include <cstdlib>

#include "base/error.h"
#include "base/system.h"

namespace specdec {
namespace {

using Names = std::vector<const char*>;

// Everything that target.h lets the compiler use for an instruction set and this machine lacks.
// The compiler's library also asks the operating system whether it saves the registers.
#if defined(__x86_64__)
#define SPECDEC_NEED(feature)                                     \
  do {                                                            \
    if (!__builtin_cpu_supports(feature)) out.push_back(feature); \
  } while (false)

Names missing_features(CpuIsa isa) {
  Names out;
  if (isa == CpuIsa::kNeonDotprod) return {"a 64-bit Arm processor"};
  if (isa == CpuIsa::kScalar) return out;
  SPECDEC_NEED("avx");
  SPECDEC_NEED("avx2");
  SPECDEC_NEED("fma");
  SPECDEC_NEED("f16c");
  SPECDEC_NEED("bmi2");
  SPECDEC_NEED("popcnt");
  if (isa == CpuIsa::kAvxVnni) SPECDEC_NEED("avxvnni");
  if (isa == CpuIsa::kAvx512Vnni) {
    SPECDEC_NEED("avx512f");
    SPECDEC_NEED("avx512bw");
    SPECDEC_NEED("avx512vl");
    SPECDEC_NEED("avx512dq");
    SPECDEC_NEED("avx512vnni");
  }
  return out;
}
#elif defined(__aarch64__)
Names missing_features(CpuIsa isa) {
  if (isa == CpuIsa::kScalar) return {};
  if (isa != CpuIsa::kNeonDotprod) return {"an x86-64 processor"};
  return missing_arm_features();
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
  for (const CpuIsa isa : supported_cpu_isas()) {
    if (name == cpu_isa_name(isa)) return isa;
    valid.push_back(cpu_isa_name(isa));
  }
  std::string why = "is unknown";
  for (const CpuIsa isa : kAllIsas) {
    if (name == cpu_isa_name(isa))
      why = "needs what is missing here: " + joined(missing_features(isa));
  }
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
