#include "backend/cpu/pack.h"

namespace specdec {

namespace scalar {
void fill_pack(PackKernels& table);
}
namespace avx2 {
void fill_pack(PackKernels& table);
}
namespace avx512 {
void fill_pack(PackKernels& table);
}

namespace {
PackKernels filled(void (*fill)(PackKernels&)) {
  PackKernels table;
  fill(table);
  return table;
}
}  // namespace

const PackKernels& pack_kernels(CpuIsa isa) {
#if defined(__x86_64__)
  static const PackKernels avx2_table = filled(avx2::fill_pack);
  static const PackKernels avx512_table = filled(avx512::fill_pack);
  if (isa == CpuIsa::kAvx2 || isa == CpuIsa::kAvxVnni) return avx2_table;
  if (isa == CpuIsa::kAvx512Vnni) return avx512_table;
#endif
  (void)isa;
  // 128-bit vectors, which every machine has that this builds for.
  static const PackKernels base_table = filled(scalar::fill_pack);
  return base_table;
}

}  // namespace specdec
