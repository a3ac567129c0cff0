// Phase 1 of an operation: the rows that its matrices read, normalised and quantised.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/packed_inputs.h"
#include "base/thread_pool.h"

namespace specdec {

// Every thread's part of it, ending in a barrier. row_index: which row of x each is, or nullptr.
void fill_inputs(const OpsKernels& ops, const float* x, std::int64_t x_stride, int n_rows,
                 const std::int32_t* row_index, const Norm& norm, const PackedInputs& inputs,
                 TaskContext& context);

}  // namespace specdec
