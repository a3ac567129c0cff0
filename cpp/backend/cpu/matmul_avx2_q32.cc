#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "backend/cpu/matmul_isa.h"
#include "backend/cpu/target.h"
#include "tensor/half.h"

#define SPECDEC_ISA avx2

#if defined(__x86_64__)
SPECDEC_TARGET_AVX2_BEGIN
// Each group uses the ones above it.
#include "backend/cpu/unroll-inl.h"

#include "backend/cpu/int_256.h"

#include "backend/cpu/int_avx2.h"
#include "backend/cpu/simd_avx2.h"

#include "backend/cpu/matmul-inl.h"
#include "backend/cpu/quantize-inl.h"
#include "quant/q4_0/tile-inl.h"
#include "quant/q4_1/tile-inl.h"
#include "quant/q5_0/tile-inl.h"
#include "quant/q5_1/tile-inl.h"
#include "quant/q8_0/tile-inl.h"

namespace specdec::avx2 {

constinit const MatmulPart kMatmulQ32 = [] {
  MatmulPart table{};
  SPECDEC_FILL(table, DType::kQ4_0, tile_q32, TileQ4_0);
  SPECDEC_FILL(table, DType::kQ4_1, tile_q32, TileQ4_1);
  SPECDEC_FILL(table, DType::kQ5_0, tile_q32, TileQ5_0);
  SPECDEC_FILL(table, DType::kQ5_1, tile_q32, TileQ5_1);
  SPECDEC_FILL(table, DType::kQ8_0, tile_q32, TileQ8_0);
  table.quantize = &quantize_q32;
  return table;
}();

}  // namespace specdec::avx2
SPECDEC_TARGET_END
#endif
