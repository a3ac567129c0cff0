// The CUDA runtime library behind runtime.h.
#include <cuda_runtime.h>

#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "backend/cuda/kernels/launch.h"
#include "backend/cuda/open_device.h"
#include "backend/stream/runtime.h"
#include "backend/stream/stream_backend.h"
#include "base/error.h"

namespace specdec {
namespace cuda {
namespace {

constexpr int kLeastComputeCapability = 75;

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// What to do about the usual ones.
const char* advice(cudaError_t error) {
  switch (error) {
    case cudaErrorInsufficientDriver:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
      return "; install a newer NVIDIA driver, or use device 'cpu'";
    case cudaErrorNoDevice:
      return "; check nvidia-smi and CUDA_VISIBLE_DEVICES, or use device 'cpu'";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      return "; this build has no code for it: build with its architecture in "
             "CMAKE_CUDA_ARCHITECTURES";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorAssert:
      return "; the device cannot be used again in this process: please report this";
    case cudaErrorDevicesUnavailable:
      return "; another process uses it exclusively";
    case cudaErrorInitializationError:
      return "; a process forked from one that used CUDA cannot use it: start processes afresh";
    default:
      return "";
  }
}

[[noreturn]] void fail(cudaError_t error, const std::string& what, int device) {
  (void)cudaGetLastError();  // not sticky ones are forgotten
  const bool memory = error == cudaErrorMemoryAllocation;
  throw Error(
      memory ? ErrorCode::kResource : ErrorCode::kDevice,
      what + " failed on CUDA device " + std::to_string(device) + ": " + cudaGetErrorString(error) +
          " (" + cudaGetErrorName(error) + ")" +
          (memory ? "; use fewer GPU layers, a smaller context or vram_budget" : advice(error)));
}

// Without touching the device: all but free_bytes.
DeviceInfo properties_of(int device) {
  DeviceInfo info;
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) fail(error, "asking for properties", device);
  info.index = device;
  info.name = properties.name;
  info.architecture = "sm_" + std::to_string(properties.major) + std::to_string(properties.minor);
  info.n_processors = properties.multiProcessorCount;
  info.total_bytes = properties.totalGlobalMem;
  info.cache_bytes = static_cast<std::uint64_t>(properties.l2CacheSize);
  int clock_khz = 0;
  int bus_bits = 0;
  if (cudaDeviceGetAttribute(&clock_khz, cudaDevAttrMemoryClockRate, device) == cudaSuccess &&
      cudaDeviceGetAttribute(&bus_bits, cudaDevAttrGlobalMemoryBusWidth, device) == cudaSuccess) {
    info.copy_bytes_per_second = 2.0 * clock_khz * 1000.0 * bus_bits / 8.0;
  }
  return info;
}

class Graph final : public Recording {
 public:
  explicit Graph(cudaGraphExec_t graph) : graph_(graph) {}
  ~Graph() override { (void)cudaGraphExecDestroy(graph_); }
  [[nodiscard]] cudaGraphExec_t get() const { return graph_; }

 private:
  cudaGraphExec_t graph_;
};

// Nothing: whether there is code for a device is asked of it.
__global__ void probe() {}

class CudaRuntime final : public Runtime {
 public:
  explicit CudaRuntime(int device) : device_(device) {
    check(cudaSetDevice(device), "opening");
    // Now rather than in the middle of the first pass, when nobody can turn to the CPU any more.
    cudaFuncAttributes attributes;
    check(cudaFuncGetAttributes(&attributes, probe), "looking for kernels");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
    check(cudaEventCreate(&begin_), "creating an event");
    check(cudaEventCreate(&middle_), "creating an event");
    check(cudaEventCreate(&end_), "creating an event");
  }
  ~CudaRuntime() override {
    (void)cudaEventDestroy(begin_);
    (void)cudaEventDestroy(middle_);
    (void)cudaEventDestroy(end_);
    (void)cudaStreamDestroy(stream_);
  }

  [[nodiscard]] DeviceInfo info() const override {
    use();
    DeviceInfo info = properties_of(device_);
    std::size_t free = 0;
    std::size_t total = 0;
    check(cudaMemGetInfo(&free, &total), "asking for free memory");
    info.free_bytes = free;
    info.total_bytes = total;
    return info;
  }

  [[nodiscard]] std::byte* allocate(std::size_t n_bytes) override {
    use();
    void* data = nullptr;
    check(cudaMalloc(&data, n_bytes), "allocating " + std::to_string(n_bytes >> 20) + " MiB");
    return static_cast<std::byte*>(data);
  }
  void free(std::byte* data) noexcept override {
    if (cudaSetDevice(device_) == cudaSuccess) (void)cudaFree(data);
  }
  [[nodiscard]] std::byte* allocate_pinned(std::size_t n_bytes) override {
    use();
    void* data = nullptr;
    check(cudaMallocHost(&data, n_bytes), "allocating pinned host memory");
    return static_cast<std::byte*>(data);
  }
  void free_pinned(std::byte* data) noexcept override {
    if (cudaSetDevice(device_) == cudaSuccess) (void)cudaFreeHost(data);
  }

  void upload(void* device, const void* host, std::size_t n_bytes) override {
    use();
    check(cudaMemcpyAsync(device, host, n_bytes, cudaMemcpyHostToDevice, stream_), "an upload");
    note_gpu_copy();
  }
  void download(void* host, const void* device, std::size_t n_bytes) override {
    use();
    check(cudaMemcpyAsync(host, device, n_bytes, cudaMemcpyDeviceToHost, stream_), "a download");
    note_gpu_copy();
  }
  void copy(void* dst, const void* src, std::size_t n_bytes) override {
    use();
    check(cudaMemcpyAsync(dst, src, n_bytes, cudaMemcpyDeviceToDevice, stream_), "a copy");
    note_gpu_copy();
  }
  void fill(void* device, int byte, std::size_t n_bytes) override {
    use();
    check(cudaMemsetAsync(device, byte, n_bytes, stream_), "filling memory");
    note_gpu_copy();
  }
  void launch(const char* what, const std::function<void(void*)>& issue) override {
    use();
    issue(stream_);
    check(cudaGetLastError(), what);
  }

  void begin_recording() override {
    use();
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording a pass");
  }
  [[nodiscard]] std::unique_ptr<Recording> end_recording() override {
    use();
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream_, &graph), "recording a pass");
    cudaGraphExec_t executable = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
    (void)cudaGraphDestroy(graph);
    check(error, "preparing a recorded pass");
    return std::make_unique<Graph>(executable);
  }
  void abandon_recording() noexcept override {
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess && graph != nullptr)
      (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError();
  }
  void play(Recording& recording) override {
    use();
    check(cudaGraphLaunch(static_cast<Graph&>(recording).get(), stream_),
          "starting a recorded pass");
  }

  void mark_begin() override { mark(begin_); }
  void mark_middle() override { mark(middle_); }
  void mark_end() override { mark(end_); }
  [[nodiscard]] double marked_ms() override { return ms_between(begin_, end_); }
  [[nodiscard]] double marked_first_ms() override { return ms_between(begin_, middle_); }

 private:
  static double ms_between(cudaEvent_t begin, cudaEvent_t end) {
    float ms = 0;
    if (cudaEventElapsedTime(&ms, begin, end) != cudaSuccess) {
      (void)cudaGetLastError();
      return 0;
    }
    return ms;
  }
  void mark(cudaEvent_t event) {
    use();
    check(cudaEventRecord(event, stream_), "recording an event");
  }
  void wait(const char* what) override {
    use();
    check(cudaStreamSynchronize(stream_), what);
  }
  // The current device belongs to a thread, and any thread may call.
  void use() const { check(cudaSetDevice(device_), "selecting"); }
  void check(cudaError_t error, const std::string& what) const {
    if (error != cudaSuccess) fail(error, what, device_);
  }

  int device_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, middle_ = nullptr, end_ = nullptr;
};

}  // namespace
}  // namespace cuda

std::string cuda_build_version() { return cuda::version_text(CUDART_VERSION); }

std::vector<DeviceInfo> cuda_devices(std::string* reason) {
  int n = 0;
  const cudaError_t error = cudaGetDeviceCount(&n);
  if (error != cudaSuccess || n == 0) {
    (void)cudaGetLastError();
    if (reason != nullptr) {
      *reason = error == cudaErrorInsufficientDriver
                    ? "no NVIDIA driver, or one older than CUDA " + cuda_build_version() + " needs"
                    : std::string("no CUDA device: ") + cudaGetErrorString(error);
    }
    return {};
  }
  std::vector<DeviceInfo> out;
  std::string too_old;
  for (int i = 0; i < n; ++i) {
    int major = 0;
    int minor = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, i) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, i) != cudaSuccess ||
        10 * major + minor < cuda::kLeastComputeCapability) {
      too_old = "device " + std::to_string(i) + " is older than compute capability 7.5";
      continue;
    }
    try {
      out.push_back(cuda::properties_of(i));
    } catch (const Error& problem) {
      too_old = problem.what();
    }
  }
  if (out.empty() && reason != nullptr) *reason = too_old;
  return out;
}

namespace {

void require_device(int device) {
  std::string reason;
  const std::vector<DeviceInfo> devices = cuda_devices(&reason);
  for (const DeviceInfo& info : devices) {
    if (info.index == device) return;
  }
  throw Error(
      ErrorCode::kDevice,
      "CUDA device " + std::to_string(device) + " cannot be used: " +
          (devices.empty() ? reason
                           : "there are " + std::to_string(devices.size()) + " usable ones") +
          "; use device 'cpu' or no GPU layers");
}

}  // namespace

namespace cuda {

OpenDevice open_cuda_device(int device) {
  require_device(device);
  return {std::make_unique<CudaRuntime>(device), &gpu_kernels()};
}

}  // namespace cuda

std::shared_ptr<DeviceBackend> make_cuda_backend(int device) {
  static std::mutex mutex;
  static std::map<int, std::weak_ptr<DeviceBackend>> open;
  const std::lock_guard lock(mutex);
  if (auto backend = open[device].lock()) return backend;
  cuda::OpenDevice opened = cuda::open_cuda_device(device);
  auto backend = make_stream_backend(std::move(opened.runtime), *opened.kernels, "cuda");
  open[device] = backend;
  return backend;
}

}  // namespace specdec
