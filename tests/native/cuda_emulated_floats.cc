#include "backend/cuda/kernels/matmul_float_launch.h"
#include "cuda_emulator.h"

namespace specdec::cuda {

void emulated_matmul_floats(const MatmulLaunch& launch, Stream stream) {
  run_floats<EmulatedLauncher>(launch, stream);
}

}  // namespace specdec::cuda
