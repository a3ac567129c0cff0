#include "standin.h"

#include <algorithm>

#include "backend/cpu/cpu_backend.h"

namespace specdec {
namespace {

#define SPECDEC_STANDIN(isa, space)                                            \
  {"standin_" #space, CpuIsa::isa,                                             \
   MatmulKernels(space::kMatmulFloat, space::kMatmulQ32, space::kMatmulQ256,   \
                 space::kMatmulRead256, space::kMatmulQ32, space::kMatmulQ256, \
                 &standin_##space::kWide)}
const Standin kStandins[] = {
    SPECDEC_STANDIN(kScalar, scalar),
#if defined(__x86_64__) && !defined(SPECDEC_SCALAR_ONLY)
    SPECDEC_STANDIN(kAvx512Vnni, avx512),
#endif
};
#undef SPECDEC_STANDIN

}  // namespace

const Standin* find_standin(const std::string& name) {
  for (const Standin& standin : kStandins) {
    if (name == standin.name) return &standin;
  }
  return nullptr;
}

std::vector<std::string> standin_names() {
  std::vector<std::string> names;
  const std::vector<CpuIsa> here = supported_cpu_isas();
  for (const Standin& standin : kStandins) {
    if (std::find(here.begin(), here.end(), standin.narrow) != here.end())
      names.emplace_back(standin.name);
  }
  return names;
}

std::shared_ptr<Backend> make_test_backend(const std::string& isa, int n_threads, Repack repack) {
  if (const Standin* standin = find_standin(isa))
    return make_cpu_backend(n_threads, standin->narrow, repack, &standin->kernels);
  return make_cpu_backend(n_threads, parse_cpu_isa(isa), repack);
}

}  // namespace specdec
