// A CUDA device without a backend: for make_cuda_backend(), and for measuring its kernels.
#pragma once

#include <memory>

#include "backend/cuda/kernels/launch.h"
#include "backend/stream/runtime.h"

namespace specdec::cuda {

struct OpenDevice {
  std::unique_ptr<Runtime> runtime;
  const Kernels* kernels = nullptr;
};
// Throws as make_cuda_backend() does.
[[nodiscard]] OpenDevice open_cuda_device(int device);

}  // namespace specdec::cuda
