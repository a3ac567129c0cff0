// A device in host memory, for tests of everything around the kernels: its memory cannot be touched
// but through the runtime and kernels, copies and launches are recorded and played as a CUDA graph
// is, and it can be short of memory.
#pragma once

#include <cstddef>
#include <memory>

#include "backend/cuda/runtime.h"
#include "backend/device_backend.h"

namespace specdec::testing {

// With n_bytes of memory.
[[nodiscard]] std::shared_ptr<DeviceBackend> make_emulated_device(std::size_t n_bytes);
// Without a backend; its kernels are cuda::emulated_kernels().
[[nodiscard]] std::unique_ptr<cuda::Runtime> make_emulated_runtime(std::size_t n_bytes);

}  // namespace specdec::testing
