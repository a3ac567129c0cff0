// All small operations of one instruction set. Included once by each ops_*.cc inside its target
// region, after a simd_*.h, with SPECDEC_KERNELS, the namespace, defined.
#pragma once

#include "backend/cpu/math-inl.h"

#include "backend/cpu/elementwise-inl.h"

#include "backend/cpu/rope_store-inl.h"

#include "backend/cpu/attention-inl.h"

#include "backend/cpu/recurrent-inl.h"

namespace specdec::SPECDEC_KERNELS {

constinit const OpsKernels kOps = {norm,    activate, activate_multiply, add,       max_finite,
                                   sum_exp, soft_cap, rope_store,        attention, recurrent_head};

}  // namespace specdec::SPECDEC_KERNELS
