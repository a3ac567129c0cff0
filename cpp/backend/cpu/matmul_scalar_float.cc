#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "backend/cpu/matmul_isa.h"
#include "backend/cpu/target.h"
#include "tensor/half.h"

#define SPECDEC_ISA scalar

// Each group uses the ones above it.
#include "backend/cpu/unroll-inl.h"

#include "backend/cpu/int_scalar.h"
#include "backend/cpu/simd_scalar.h"

#include "backend/cpu/matmul-inl.h"
#include "backend/cpu/quantize-inl.h"

namespace specdec::scalar {

constinit const MatmulPart kMatmulFloat = [] {
  MatmulPart table{};
  SPECDEC_FILL(table, DType::kF32, tile_float, TileF32);
  SPECDEC_FILL(table, DType::kF16, tile_float, TileF16);
  SPECDEC_FILL(table, DType::kBF16, tile_float, TileBF16);
  table.quantize = &quantize_float;
  return table;
}();

}  // namespace specdec::scalar
