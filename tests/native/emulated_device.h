// A device in host memory, for tests of everything around the kernels: its memory cannot be touched
// but through the runtime and kernels, copies and launches are recorded and played as a CUDA graph
// is, nothing is executed before the host waits, and it can be short of memory or fail.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

#include "backend/device_backend.h"
#include "backend/stream/runtime.h"

namespace specdec::testing {

// The n-th launch, copy or replay, wait, end of a recording or pinned allocation, from when n was
// set, fails once; 0: none.
struct EmulatedFaults {
  std::atomic<int> issues{0};
  std::atomic<int> waits{0};
  std::atomic<int> recordings{0};  // for want of memory
  std::atomic<int> pinned{0};      // likewise
};

// With n_bytes of memory.
[[nodiscard]] std::shared_ptr<DeviceBackend> make_emulated_device(
    std::size_t n_bytes, std::shared_ptr<EmulatedFaults> faults = nullptr);
// Without a backend; its kernels are cuda::emulated_kernels().
[[nodiscard]] std::unique_ptr<stream::Runtime> make_emulated_runtime(
    std::size_t n_bytes, std::shared_ptr<EmulatedFaults> faults = nullptr);

// Kernels run so far.
[[nodiscard]] int emulated_launches();

}  // namespace specdec::testing
