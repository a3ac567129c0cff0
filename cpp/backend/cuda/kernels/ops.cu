// The small operations, and the table of all.
#include <cstdlib>
#include <cstring>

#include "backend/cuda/kernels/cuda_grid.h"
#include "backend/cuda/kernels/dispatch-inl.h"

namespace specdec::cuda {

const DeviceTraits& device_traits() {
  thread_local int known = -1;
  thread_local DeviceTraits traits;
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device == known) return traits;
  int major = 0;
  traits = {};
  (void)cudaDeviceGetAttribute(&traits.n_processors, cudaDevAttrMultiProcessorCount, device);
  (void)cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  const char* early = std::getenv("SPECDEC_CUDA_EARLY_START");
  traits.starts_early = major >= 9 && (early == nullptr || std::strcmp(early, "0") != 0);
  known = device;
  return traits;
}

void CudaLauncher::matmul(const MatmulLaunch& launch, Stream stream) {
  switch (input_kind(launch.dtype)) {
    case InputKind::kQ32:
      return gpu_matmul_q32(launch, stream);
    case InputKind::kQ256:
      return gpu_matmul_q256(launch, stream);
    case InputKind::kFloat:
      return gpu_matmul_floats(launch, stream);
  }
}

const Kernels& gpu_kernels() {
  static const Kernels kernels{
      .name = "cuda",
      .prepare = prepare<CudaLauncher>,
      .linear = linear<CudaLauncher>,
      .gated_linear = gated_linear<CudaLauncher>,
      .rope_store = rope_store<CudaLauncher>,
      .attention = gpu_attention,
      .copy_position = copy_position<CudaLauncher>,
      .add = add<CudaLauncher>,
      .head = head<CudaLauncher>,
      .embed = embed<CudaLauncher>,
      .take_tokens = take_tokens<CudaLauncher>,
  };
  return kernels;
}

}  // namespace specdec::cuda
