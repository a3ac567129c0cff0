#include "backend/cpu/matmul.h"

#include "base/error.h"

namespace specdec {

#define SPECDEC_DECLARE_FILL(isa)        \
  namespace isa {                        \
  void fill_q32(MatmulKernels& table);   \
  void fill_q256(MatmulKernels& table);  \
  void fill_float(MatmulKernels& table); \
  }
SPECDEC_DECLARE_FILL(scalar)
SPECDEC_DECLARE_FILL(avx2)
SPECDEC_DECLARE_FILL(avx512)
namespace avxvnni {
void fill_q32(MatmulKernels& table);
void fill_q256(MatmulKernels& table);
}  // namespace avxvnni
SPECDEC_DECLARE_FILL(neon)

#define SPECDEC_FILL_TABLE(isa) \
  [] {                          \
    MatmulKernels table{};      \
    isa::fill_q32(table);       \
    isa::fill_q256(table);      \
    isa::fill_float(table);     \
    return table;               \
  }()

const MatmulKernels& matmul_kernels(CpuIsa isa) {
  static const MatmulKernels scalar_table = SPECDEC_FILL_TABLE(scalar);
#if defined(__x86_64__)
  static const MatmulKernels avx2_table = SPECDEC_FILL_TABLE(avx2);
  static const MatmulKernels avxvnni_table = [] {
    MatmulKernels table = avx2_table;  // floats and activations
    avxvnni::fill_q32(table);
    avxvnni::fill_q256(table);
    return table;
  }();
  static const MatmulKernels avx512_table = SPECDEC_FILL_TABLE(avx512);
  if (isa == CpuIsa::kAvx2) return avx2_table;
  if (isa == CpuIsa::kAvxVnni) return avxvnni_table;
  if (isa == CpuIsa::kAvx512Vnni) return avx512_table;
#elif defined(__aarch64__)
  static const MatmulKernels neon_table = SPECDEC_FILL_TABLE(neon);
  if (isa == CpuIsa::kNeonDotprod) return neon_table;
#endif
  return scalar_table;
}

}  // namespace specdec
