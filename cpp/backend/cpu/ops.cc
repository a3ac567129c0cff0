#include "backend/cpu/ops.h"

#include "backend/cpu/ops_isa.h"

namespace specdec {

const OpsKernels& ops_kernels(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512Vnni) return avx512::kOps;
  if (isa == CpuIsa::kAvx2 || isa == CpuIsa::kAvxVnni) return avx2::kOps;
#elif defined(__aarch64__)
  if (isa == CpuIsa::kNeonDotprod) return neon::kOps;
#endif
  (void)isa;
  return scalar::kOps;
}

}  // namespace specdec
