// The table of the kernels of cpp/backend/cuda/kernels, compiled for the emulator, with the small
// ones. The others are files of their own, as for nvcc: a change compiles sooner.
#include "backend/cuda/kernels/dispatch-inl.h"
#include "cuda_emulator.h"

namespace specdec::cuda {

void EmulatedLauncher::matmul(const MatmulLaunch& launch, Stream stream) {
  switch (input_kind(launch.dtype)) {
    case InputKind::kQ32:
      return emulated_matmul_q32(launch, stream);
    case InputKind::kQ256:
      return emulated_matmul_q256(launch, stream);
    case InputKind::kFloat:
      return emulated_matmul_floats(launch, stream);
  }
}

const Kernels& emulated_kernels() {
  static const stream::KernelMemory memory = [] {
    stream::KernelMemory with_gaps = kKernelMemory;
    with_gaps.gap_bytes = 4096;  // more than kernels load at a time
    return with_gaps;
  }();
  static const Kernels kernels{
      .name = "emulated",
      .memory = memory,
      .pack_input = pack_input<EmulatedLauncher>,
      .linear = linear<EmulatedLauncher>,
      .gated_linear = gated_linear<EmulatedLauncher>,
      .rope_store = rope_store<EmulatedLauncher>,
      .attention = emulated_attention,
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
