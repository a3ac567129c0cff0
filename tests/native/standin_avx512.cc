// The wide kernels with the vectors of AVX-512 and registers in memory.
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

#define SPECDEC_KERNELS standin_avx512

#if defined(__x86_64__) && !defined(SPECDEC_SCALAR_ONLY)
SPECDEC_TARGET_BEGIN(avx512)
// Each uses the ones above it.
#include "backend/cpu/unroll-inl.h"

#include "backend/cpu/int_avx512.h"

#include "backend/cpu/tiles/lines-inl.h"

#include "backend/cpu/wide/fold_avx512.h"
#include "standin_registers.h"

#include "backend/cpu/wide/wide-inl.h"

namespace specdec::standin_avx512 {
constinit const WideKernels kWide = wide_kernels<Registers>();
}  // namespace specdec::standin_avx512
SPECDEC_TARGET_END
#endif
