#include "backend/cpu/pack.h"

#include "backend/cpu/pack_isa.h"

namespace specdec {

const PackKernels& pack_kernels(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx2 || isa == CpuIsa::kAvxVnni) return avx2::kPack;
  if (isa == CpuIsa::kAvx512Vnni) return avx512::kPack;
#endif
  (void)isa;
  // 128-bit vectors, which every machine has that this builds for.
  return scalar::kPack;
}

}  // namespace specdec
