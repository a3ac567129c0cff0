#include "backend/cpu/matmul.h"

#include "backend/cpu/matmul_isa.h"

namespace specdec {
namespace {

constexpr MatmulKernels kScalar(scalar::kMatmulFloat, scalar::kMatmulQ32, scalar::kMatmulQ256);
#if defined(__x86_64__)
constexpr MatmulKernels kAvx2(avx2::kMatmulFloat, avx2::kMatmulQ32, avx2::kMatmulQ256);
// Floats and activations are those of AVX2.
constexpr MatmulKernels kAvxVnni(avx2::kMatmulFloat, avxvnni::kMatmulQ32, avxvnni::kMatmulQ256,
                                 avx2::kMatmulQ32, avx2::kMatmulQ256);
constexpr MatmulKernels kAvx512(avx512::kMatmulFloat, avx512::kMatmulQ32, avx512::kMatmulQ256);
#elif defined(__aarch64__)
constexpr MatmulKernels kNeon(neon::kMatmulFloat, neon::kMatmulQ32, neon::kMatmulQ256);
#endif

}  // namespace

const MatmulKernels& matmul_kernels(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx2) return kAvx2;
  if (isa == CpuIsa::kAvxVnni) return kAvxVnni;
  if (isa == CpuIsa::kAvx512Vnni) return kAvx512;
#elif defined(__aarch64__)
  if (isa == CpuIsa::kNeonDotprod) return kNeon;
#endif
  (void)isa;
  return kScalar;
}

}  // namespace specdec
