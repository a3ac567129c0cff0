// Products with many columns by the tile registers of AMX.
#include "backend/cpu/intrinsics.h"

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "backend/cpu/matmul.h"
#include "backend/cpu/target.h"
#include "backend/cpu/tiles/tile_codes.h"
#include "backend/cpu/wide/tile_registers.h"
#include "tensor/half.h"

#define SPECDEC_KERNELS amx

SPECDEC_TARGET_BEGIN(amx)
// Each uses the ones above it.
#include "backend/cpu/unroll-inl.h"

#include "backend/cpu/int_avx512.h"

#include "backend/cpu/tiles/lines-inl.h"

#include "backend/cpu/wide/amx_registers.h"
#include "backend/cpu/wide/fold_avx512.h"

#include "backend/cpu/wide/wide-inl.h"

namespace specdec::amx {
constinit const WideKernels kWide = wide_kernels<Registers>();
}  // namespace specdec::amx
SPECDEC_TARGET_END
