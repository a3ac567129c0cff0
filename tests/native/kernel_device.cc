#include "kernel_device.h"

#include <cstring>

#include "backend/cuda/open_device.h"
#include "base/error.h"

namespace specdec::testing {
namespace {

cuda::OpenDevice& opened() {
  static cuda::OpenDevice device;
  return device;
}
bool& on_gpu() {
  static bool value = false;
  return value;
}

}  // namespace

void set_kernel_device(const std::string& name) {
  if (name != "emulated" && name != "cuda") throw_invalid("unknown device " + name);
  if (name == "cuda" && opened().runtime == nullptr) opened() = cuda::open_cuda_device(0);
  on_gpu() = name == "cuda";
  cuda::set_gpu_processors(-1);
}

void set_processors(int n) {
  if (on_gpu()) {
    cuda::set_gpu_processors(n);
  } else {
    cuda::emulator_options().n_processors = n;
  }
}

const cuda::Kernels& device_kernels() {
  return on_gpu() ? *opened().kernels : cuda::emulated_kernels();
}

stream::Runtime* device_runtime() { return on_gpu() ? opened().runtime.get() : nullptr; }

void run_on_device(const std::function<void(cuda::Stream stream)>& issue) {
  if (stream::Runtime* runtime = device_runtime()) {
    runtime->launch("a kernel", issue);
    runtime->synchronize("running a kernel");
    return;
  }
  issue(nullptr);
  const std::string error = cuda::take_emulator_error();
  if (!error.empty()) throw_invalid(error);
}

DeviceBuffer::DeviceBuffer(std::size_t n_bytes) : n_bytes_(n_bytes), runtime_(device_runtime()) {
  if (runtime_ == nullptr) {
    emulated_ = std::make_unique<cuda::EmulatedBuffer>(n_bytes);
    data_ = emulated_->data();
  } else if (n_bytes > 0) {
    data_ = runtime_->allocate(n_bytes);
    runtime_->fill(data_, 0xFF, n_bytes);
  }
}

DeviceBuffer::~DeviceBuffer() {
  if (runtime_ != nullptr && data_ != nullptr) runtime_->free(data_);
}

void DeviceBuffer::upload(const void* host) {
  if (n_bytes_ == 0) return;
  if (runtime_ == nullptr) {
    std::memcpy(data_, host, n_bytes_);
    return;
  }
  runtime_->upload(data_, host, n_bytes_);
  runtime_->synchronize("an upload");
}

void DeviceBuffer::download(void* host) const {
  if (n_bytes_ == 0) return;
  if (runtime_ == nullptr) {
    std::memcpy(host, data_, n_bytes_);
    return;
  }
  runtime_->download(host, data_, n_bytes_);
  runtime_->synchronize("a download");
}

}  // namespace specdec::testing
