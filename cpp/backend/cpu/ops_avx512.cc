#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__x86_64__)
#include <immintrin.h>

#include "backend/cpu/attention_plan.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/ops_isa.h"
#include "backend/cpu/recurrent_plan.h"
#include "backend/cpu/target.h"
#include "tensor/half.h"

#define SPECDEC_SIMD_NAMESPACE avx512
#define SPECDEC_ATTENTION_GROUP 8
#define SPECDEC_ATTENTION_ACCUMULATORS 24

SPECDEC_TARGET_AVX512_BEGIN
#include "backend/cpu/simd_avx512.h"

#include "backend/cpu/ops-inl.h"

SPECDEC_TARGET_END
#endif
