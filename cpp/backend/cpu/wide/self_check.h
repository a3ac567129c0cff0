// Whether registers that hold matrices do what the kernels were written for.
#pragma once

#include "backend/cpu/matmul.h"
#include "base/cpu_isa.h"

namespace specdec {

// Whether small products with many columns, one for each way of multiplying, have the bits of the
// scalar kernels.
[[nodiscard]] bool wide_kernels_agree(const MatmulKernels& kernels);

// `isa`; the set below it, with a warning to the log, where its wide kernels fail that, which is
// tried once.
[[nodiscard]] CpuIsa working_cpu_isa(CpuIsa isa);

}  // namespace specdec
