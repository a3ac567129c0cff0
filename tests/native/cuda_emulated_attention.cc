#include "backend/cuda/kernels/attention_launch.h"
#include "cuda_emulator.h"

namespace specdec::cuda {

void emulated_attention(const AttentionArgs& args, Stream stream) {
  attention<EmulatedLauncher>(args, stream);
}

}  // namespace specdec::cuda
