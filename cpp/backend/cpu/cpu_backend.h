// For tests and benchmarks that compare instruction sets; everybody else calls
// make_cpu_backend(n_threads).
#pragma once

#include <memory>

#include "backend/backend.h"
#include "base/cpu_isa.h"

namespace specdec {

class MatmulKernels;

// matmul: products in place of those of the instruction set.
[[nodiscard]] std::shared_ptr<Backend> make_cpu_backend(int n_threads, CpuIsa isa,
                                                        Repack repack = Repack::kAuto,
                                                        const MatmulKernels* matmul = nullptr);

}  // namespace specdec
