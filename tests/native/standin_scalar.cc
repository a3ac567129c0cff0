// The wide kernels with plain C++ and registers in memory.
#include "backend/cpu/intrinsics.h"

#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "backend/cpu/target.h"
#include "backend/cpu/tiles/tile_codes.h"
#include "backend/cpu/wide/tile_registers.h"
#include "standin.h"
#include "tensor/half.h"

#define SPECDEC_KERNELS standin_scalar

SPECDEC_TARGET_BEGIN(scalar)
// Each uses the ones above it.
#include "backend/cpu/unroll-inl.h"

#include "backend/cpu/int_scalar.h"

#include "backend/cpu/tiles/lines-inl.h"

#include "backend/cpu/wide/fold_scalar.h"
#include "standin_registers.h"

#include "backend/cpu/wide/wide-inl.h"

namespace specdec::standin_scalar {
constinit const WideKernels kWide = wide_kernels<Registers>();
}  // namespace specdec::standin_scalar
SPECDEC_TARGET_END
