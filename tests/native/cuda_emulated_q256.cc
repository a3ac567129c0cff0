#include "backend/cuda/kernels/matmul_launch.h"
#include "cuda_emulator.h"

namespace specdec::cuda {

void emulated_matmul_q256(const MatmulLaunch& launch, Stream stream) {
  run_q256<EmulatedLauncher>(launch, stream);
}

}  // namespace specdec::cuda
