#include "cuda_probe.h"

#include "backend/cuda/kernels/cuda_grid.h"

namespace specdec::cuda {

void gpu_probe(const ProbeParams& params, Stream stream) {
  CudaLauncher::launch<Probe>(params, 1, 1, 32, 0, stream);
}

}  // namespace specdec::cuda
