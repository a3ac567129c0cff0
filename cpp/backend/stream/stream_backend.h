// The backend of a device that is a runtime and a table of kernels: a GPU, or the emulator of the
// tests.
#pragma once

#include <memory>

#include "backend/device_backend.h"
#include "backend/stream/kernels.h"
#include "backend/stream/runtime.h"

namespace specdec {

// `name` is what BackendInfo says. n_threads pack weights; 0: all cores.
[[nodiscard]] std::shared_ptr<DeviceBackend> make_stream_backend(
    std::unique_ptr<stream::Runtime> runtime, const stream::Kernels& kernels, const char* name,
    int n_threads = 0);

}  // namespace specdec
