#include "backend/cuda/kernels/attention_launch.h"
#include "backend/cuda/kernels/cuda_grid.h"

namespace specdec::cuda {

void gpu_attention(const AttentionArgs& args, Stream stream) {
  attention<CudaLauncher>(args, stream);
}

}  // namespace specdec::cuda
