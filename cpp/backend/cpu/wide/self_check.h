// Whether registers that hold matrices do what the kernels were written for.
#pragma once

#include "backend/cpu/matmul.h"
#include "base/cpu_isa.h"

namespace specdec {

// Whether small products with many columns, one for each way of multiplying, have the bits of the
// scalar kernels.
[[nodiscard]] bool wide_kernels_agree(const MatmulKernels& kernels);

// `isa`, whose kernels these are; the set below it, with a warning to the log, where they do not.
[[nodiscard]] CpuIsa checked_cpu_isa(CpuIsa isa, CpuIsa narrow, const MatmulKernels& kernels);

// The same of any set, tried once.
[[nodiscard]] CpuIsa working_cpu_isa(CpuIsa isa);

}  // namespace specdec
