#include "standin.h"

#include <algorithm>

#include "backend/cpu/cpu_backend.h"

namespace specdec {
namespace {

constexpr const char* kTrapped = "standin_trapped";

#define SPECDEC_STANDIN(name, isa, space, wide)                              \
  {name, CpuIsa::isa,                                                        \
   MatmulKernels(space::kMatmulFloat, space::kMatmulQ32, space::kMatmulQ256, \
                 space::kMatmulRead256, space::kMatmulQ32, space::kMatmulQ256, &wide)}
const Standin kStandins[] = {
    SPECDEC_STANDIN("standin_scalar", kScalar, scalar, standin_scalar::kWide),
#if defined(__x86_64__) && !defined(SPECDEC_SCALAR_ONLY)
    SPECDEC_STANDIN("standin_avx512", kAvx512Vnni, avx512, standin_avx512::kWide),
    SPECDEC_STANDIN(kTrapped, kAvx512Vnni, avx512, amx::kWide),
#endif
};
#undef SPECDEC_STANDIN

}  // namespace

const Standin* find_standin(const std::string& name) {
  if (name == kTrapped) trap_tiles();
  for (const Standin& standin : kStandins) {
    if (name == standin.name) return &standin;
  }
  return nullptr;
}

std::vector<std::string> standin_names() {
  std::vector<std::string> names;
  const std::vector<CpuIsa> here = supported_cpu_isas();
  for (const Standin& standin : kStandins) {
    if (std::find(here.begin(), here.end(), standin.narrow) == here.end()) continue;
    if (standin.name != std::string(kTrapped) || can_trap_tiles()) names.emplace_back(standin.name);
  }
  return names;
}

std::shared_ptr<Backend> make_test_backend(const std::string& isa, int n_threads, Repack repack) {
  if (const Standin* standin = find_standin(isa))
    return make_cpu_backend(n_threads, standin->narrow, repack, &standin->kernels);
  return make_cpu_backend(n_threads, parse_cpu_isa(isa), repack);
}

}  // namespace specdec
