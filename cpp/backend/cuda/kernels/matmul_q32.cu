#include "backend/cuda/kernels/cuda_grid.h"

namespace specdec::cuda {

void gpu_matmul_q32(const MatmulLaunch& launch, Stream stream) {
  run_q32<CudaLauncher>(launch, stream);
}

}  // namespace specdec::cuda
