#include "base/cpu_isa.h"

#include <cstdlib>

#include "base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace specdec {
namespace {

#if defined(__x86_64__)
// CPUID leaf 7.1, EAX bit 4. It needs no more state than AVX2.
bool has_avx_vnni() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & (1U << 4)) != 0;
}
#endif

}  // namespace

const char* cpu_isa_name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kScalar:
      return "scalar";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvxVnni:
      return "avx_vnni";
    case CpuIsa::kAvx512Vnni:
      return "avx512_vnni";
    case CpuIsa::kNeonDotprod:
      return "neon_dotprod";
  }
  return "?";
}

std::vector<CpuIsa> supported_cpu_isas() {
  std::vector<CpuIsa> out{CpuIsa::kScalar};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    out.push_back(CpuIsa::kAvx2);
    if (has_avx_vnni()) out.push_back(CpuIsa::kAvxVnni);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni")) {
      out.push_back(CpuIsa::kAvx512Vnni);
    }
  }
#elif defined(__aarch64__)
  if ((::getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0) out.push_back(CpuIsa::kNeonDotprod);
#endif
  return out;
}

CpuIsa parse_cpu_isa(const std::string& name) {
  std::string valid;
  for (const CpuIsa isa : supported_cpu_isas()) {
    if (name == cpu_isa_name(isa)) return isa;
    valid += std::string(valid.empty() ? "" : ", ") + cpu_isa_name(isa);
  }
  throw_invalid("SPECDEC_CPU_ISA is '" + printable(name) + "'; this machine can run: " + valid);
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
