// Where tests of kernels run: on the emulator of the grid, or on the first GPU.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "backend/cuda/kernels/launch.h"
#include "backend/stream/runtime.h"
#include "cuda_emulator.h"

namespace specdec::testing {

// "emulated" (at first) or "cuda", for all that follows.
void set_kernel_device(const std::string& name);
// Kernels and grids are chosen for so many processors, until the device is set again.
void set_processors(int n);

// The kernels of that device, and its runtime; null: the emulator without one.
[[nodiscard]] const cuda::Kernels& device_kernels();
[[nodiscard]] stream::Runtime* device_runtime();

// Runs `issue` with the stream and waits. Throws what the device or the emulator found.
void run_on_device(const std::function<void(cuda::Stream stream)>& issue);
template <class Args>
void run_kernels(void (*kernels)(const Args&, cuda::Stream), const Args& args) {
  run_on_device([&](cuda::Stream stream) { kernels(args, stream); });
}

// Memory of that device, full of NaN. Kernels on the emulator can touch nothing else.
class DeviceBuffer {
 public:
  explicit DeviceBuffer(std::size_t n_bytes);
  ~DeviceBuffer();
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return n_bytes_; }
  template <class T>
  [[nodiscard]] T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  void upload(const void* host);  // all of it
  void download(void* host) const;

 private:
  std::size_t n_bytes_;
  std::unique_ptr<cuda::EmulatedBuffer> emulated_;
  stream::Runtime* runtime_ = nullptr;
  std::byte* data_ = nullptr;
};

}  // namespace specdec::testing
