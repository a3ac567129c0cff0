// The small operations, and the table of all.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "backend/cuda/kernels/cuda_grid.h"
#include "backend/cuda/kernels/dispatch-inl.h"

namespace specdec::cuda {

namespace {

constexpr int kMostDevices = 64;

std::atomic<int>& chosen_processors() {
  static std::atomic<int> n{-1};
  return n;
}

DeviceTraits traits_of(int device) {
  DeviceTraits traits;
  (void)cudaDeviceGetAttribute(&traits.n_processors, cudaDevAttrMultiProcessorCount, device);
  // What the code was compiled for, not what runs it: PTX for an older GPU, compiled for this one
  // when the program started, has no wait_for_previous().
  cudaFuncAttributes code{};
  const bool waits =
      cudaFuncGetAttributes(&code, run_kernel<TakeTokens>) == cudaSuccess && code.ptxVersion >= 90;
  const char* early = std::getenv("SPECDEC_CUDA_EARLY_START");
  traits.starts_early = waits && (early == nullptr || std::strcmp(early, "0") != 0);
  return traits;
}

}  // namespace

// Asked once per device, by the first launch, which is none of a recording.
const DeviceTraits& device_traits() {
  static std::once_flag once[kMostDevices];
  static DeviceTraits traits[kMostDevices + 1];  // the last: an unknown device
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device >= kMostDevices) return traits[kMostDevices];
  std::call_once(once[device], [device] { traits[device] = traits_of(device); });
  return traits[device];
}

bool& next_may_start_early() {
  thread_local bool may = false;
  return may;
}

int CudaLauncher::n_processors() {
  const int chosen = chosen_processors();
  return chosen >= 0 ? chosen : device_traits().n_processors;
}

void note_gpu_copy() { next_may_start_early() = false; }

void set_gpu_processors(int n) { chosen_processors() = n; }

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
      .memory = kKernelMemory,
      .pack_input = pack_input<CudaLauncher>,
      .linear = linear<CudaLauncher>,
      .gated_linear = gated_linear<CudaLauncher>,
      .rope_store = rope_store<CudaLauncher>,
      .attention = gpu_attention,
      .copy_position = copy_position<CudaLauncher>,
      .norm = norm<CudaLauncher>,
      .head = head<CudaLauncher>,
      .embed = embed<CudaLauncher>,
      .take_tokens = take_tokens<CudaLauncher>,
      .choose = choose<CudaLauncher>,
      .group = group<CudaLauncher>,
      .combine = combine<CudaLauncher>,
  };
  return kernels;
}

}  // namespace specdec::cuda
