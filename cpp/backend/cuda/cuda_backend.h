// The backend of a device with kernels of kernels/launch.h: a GPU, or the emulator of the tests.
#pragma once

#include <memory>

#include "backend/cuda/kernels/launch.h"
#include "backend/cuda/runtime.h"
#include "backend/device_backend.h"

namespace specdec::cuda {

// `name` is what BackendInfo says. n_threads pack weights; 0: all cores.
[[nodiscard]] std::shared_ptr<DeviceBackend> make_backend(std::unique_ptr<Runtime> runtime,
                                                          const Kernels& kernels, const char* name,
                                                          int n_threads = 0);

// A CUDA device without a backend, for measuring its kernels. Throws as make_cuda_backend() does.
struct OpenDevice {
  std::unique_ptr<Runtime> runtime;
  const Kernels* kernels = nullptr;
};
[[nodiscard]] OpenDevice open_cuda_device(int device);

}  // namespace specdec::cuda
