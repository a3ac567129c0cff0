#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__aarch64__)
#include <arm_neon.h>

#include "backend/cpu/attention_plan.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/ops_isa.h"
#include "backend/cpu/recurrent_plan.h"
#include "backend/cpu/target.h"
#include "tensor/half.h"

#define SPECDEC_SIMD_NAMESPACE neon
#define SPECDEC_ATTENTION_GROUP 6
#define SPECDEC_ATTENTION_ACCUMULATORS 6

SPECDEC_TARGET_NEON_BEGIN
#include "backend/cpu/simd_neon.h"

#include "backend/cpu/ops-inl.h"

SPECDEC_TARGET_END
#endif
