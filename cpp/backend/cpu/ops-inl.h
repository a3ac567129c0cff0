// All small operations of one instruction set. Included once by each ops_*.cc inside its target
// region, after a simd_*.h, with SPECDEC_SIMD_NAMESPACE, SPECDEC_ATTENTION_GROUP (queries that
// share a key vector in registers) and SPECDEC_ATTENTION_ACCUMULATORS (F32x16 that fit beside them)
// defined.
#pragma once

#include "backend/cpu/math-inl.h"

#include "backend/cpu/elementwise-inl.h"

#include "backend/cpu/rope_store-inl.h"

#include "backend/cpu/attention-inl.h"

namespace specdec::SPECDEC_SIMD_NAMESPACE {

constinit const OpsKernels kOps = {norm,    activate, activate_multiply, add,      max_finite,
                                   sum_exp, soft_cap, rope_store,        attention};

}  // namespace specdec::SPECDEC_SIMD_NAMESPACE
