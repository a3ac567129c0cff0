// For tests and benchmarks that compare instruction sets; everybody else calls
// make_cpu_backend(n_threads).
#pragma once

#include <memory>

#include "backend/backend.h"
#include "base/cpu_isa.h"

namespace specdec {

[[nodiscard]] std::shared_ptr<Backend> make_cpu_backend(int n_threads, CpuIsa isa,
                                                        Repack repack = Repack::kAuto);

}  // namespace specdec
