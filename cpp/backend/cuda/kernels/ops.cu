// The small operations, and the table of all.
#include "backend/cuda/kernels/cuda_grid.h"
#include "backend/cuda/kernels/dispatch-inl.h"

namespace specdec::cuda {

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
