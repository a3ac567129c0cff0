#include "backend/cuda/kernels/cuda_grid.h"
#include "backend/cuda/kernels/matmul_float_launch.h"

namespace specdec::cuda {

void gpu_matmul_floats(const MatmulLaunch& launch, Stream stream) {
  run_floats<CudaLauncher>(launch, stream);
}

}  // namespace specdec::cuda
