// What answers when the CUDA backend is not built.
#include "backend/cuda/open_device.h"
#include "backend/device_backend.h"
#include "base/error.h"

namespace specdec {
namespace {

[[noreturn]] void throw_no_cuda() {
  throw Error(
      ErrorCode::kUnsupported,
      "this build has no CUDA; install with `pip install . -C "
      "cmake.define.SPECDEC_CUDA=ON` (needs nvcc 13), or use device 'cpu' and no GPU layers");
}

}  // namespace

std::vector<DeviceInfo> cuda_devices(std::string* reason) {
  if (reason != nullptr) *reason = "this build has no CUDA";
  return {};
}

std::string cuda_build_version() { return {}; }

std::shared_ptr<DeviceBackend> make_cuda_backend(int) { throw_no_cuda(); }

cuda::OpenDevice cuda::open_cuda_device(int) { throw_no_cuda(); }

}  // namespace specdec
