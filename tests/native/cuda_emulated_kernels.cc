// Every kernel of cpp/backend/cuda/kernels, compiled for the emulator.
#include "backend/cuda/kernels/attention_launch.h"
#include "backend/cuda/kernels/dispatch-inl.h"
#include "backend/cuda/kernels/matmul_float_launch.h"
#include "cuda_emulator.h"

namespace specdec::cuda {

void EmulatedLauncher::matmul(const MatmulLaunch& launch, Stream stream) {
  switch (input_kind(launch.dtype)) {
    case InputKind::kQ32:
      return run_q32<EmulatedLauncher>(launch, stream);
    case InputKind::kQ256:
      return run_q256<EmulatedLauncher>(launch, stream);
    case InputKind::kFloat:
      return run_floats<EmulatedLauncher>(launch, stream);
  }
}

const Kernels& emulated_kernels() {
  static const Kernels kernels{
      .name = "emulated",
      .memory = kKernelMemory,
      .pack_input = pack_input<EmulatedLauncher>,
      .linear = linear<EmulatedLauncher>,
      .gated_linear = gated_linear<EmulatedLauncher>,
      .rope_store = rope_store<EmulatedLauncher>,
      .attention = attention<EmulatedLauncher>,
      .copy_position = copy_position<EmulatedLauncher>,
      .norm = norm<EmulatedLauncher>,
      .head = head<EmulatedLauncher>,
      .embed = embed<EmulatedLauncher>,
      .take_tokens = take_tokens<EmulatedLauncher>,
      .choose = choose<EmulatedLauncher>,
      .group = group<EmulatedLauncher>,
      .combine = combine<EmulatedLauncher>,
  };
  return kernels;
}

}  // namespace specdec::cuda
