#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "backend/cpu/attention_plan.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/ops_isa.h"
#include "backend/cpu/recurrent_plan.h"
#include "backend/cpu/target.h"
#include "tensor/half.h"

#define SPECDEC_SIMD_NAMESPACE scalar
#define SPECDEC_ATTENTION_GROUP 8
#define SPECDEC_ATTENTION_ACCUMULATORS 16

#include "backend/cpu/simd_scalar.h"

#include "backend/cpu/ops-inl.h"
