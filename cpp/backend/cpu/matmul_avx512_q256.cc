#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "backend/cpu/matmul_isa.h"
#include "backend/cpu/target.h"
#include "tensor/half.h"

#define SPECDEC_ISA avx512

#if defined(__x86_64__)
SPECDEC_TARGET_AVX512_BEGIN
// Each group uses the ones above it.
#include "backend/cpu/unroll-inl.h"

#include "backend/cpu/int_avx512.h"
#include "backend/cpu/simd_avx512.h"

#include "backend/cpu/matmul-inl.h"
#include "backend/cpu/quantize-inl.h"
#include "quant/q2_k/tile-inl.h"
#include "quant/q3_k/tile-inl.h"
#include "quant/q4_k/tile-inl.h"
#include "quant/q5_k/tile-inl.h"
#include "quant/q6_k/tile-inl.h"

namespace specdec::avx512 {

constinit const MatmulPart kMatmulQ256 = [] {
  MatmulPart table{};
  SPECDEC_FILL(table, DType::kQ2_K, tile_q256, TileQ2_K);
  SPECDEC_FILL(table, DType::kQ3_K, tile_q256, TileQ3_K);
  SPECDEC_FILL(table, DType::kQ4_K, tile_q256, TileQ4_K);
  SPECDEC_FILL(table, DType::kQ5_K, tile_q256, TileQ5_K);
  SPECDEC_FILL(table, DType::kQ6_K, tile_q256, TileQ6_K);
  table.quantize = &quantize_q256;
  return table;
}();

}  // namespace specdec::avx512
SPECDEC_TARGET_END
#endif
