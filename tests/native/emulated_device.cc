#include "emulated_device.h"

#include <sys/mman.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "backend/stream/runtime.h"
#include "backend/stream/stream_backend.h"
#include "base/error.h"
#include "cuda_emulator.h"

namespace specdec::testing {
namespace {

using Work = std::vector<std::function<void()>>;

class EmulatedRecording final : public stream::Recording {
 public:
  explicit EmulatedRecording(Work work) : work_(std::move(work)) {}
  [[nodiscard]] const Work& work() const { return work_; }

 private:
  Work work_;
};

// Memory that kernels may use while it is shown, on pages of its own, so that the host can be kept
// away from it. Filled with NaN, and with a page on each side that is nobody's.
class Memory {
 public:
  explicit Memory(std::size_t n_bytes)
      : n_bytes_(n_bytes),
        pages_(static_cast<std::byte*>(std::aligned_alloc(kPage, whole_bytes() + 2 * kPage))) {
    if (pages_ == nullptr) throw std::bad_alloc();
    std::memset(data(), 0xFF, whole_bytes());
  }
  [[nodiscard]] std::size_t n_bytes() const { return n_bytes_; }
  [[nodiscard]] std::byte* data() const { return pages_.get() + kPage; }
  void protect(int rights) const { ::mprotect(data(), whole_bytes(), rights); }
  void show() const { cuda::set_parts(data(), n_bytes_, {{.offset = 0, .n_bytes = n_bytes_}}); }
  void hide() const { cuda::set_parts(data(), n_bytes_, {}); }

 private:
  static constexpr std::size_t kPage = 4096;
  struct Free {
    void operator()(std::byte* pages) const { std::free(pages); }
  };
  [[nodiscard]] std::size_t whole_bytes() const { return (n_bytes_ + kPage - 1) / kPage * kPage; }

  std::size_t n_bytes_;
  std::unique_ptr<std::byte, Free> pages_;
};

class EmulatedRuntime final : public stream::Runtime {
 public:
  EmulatedRuntime(std::size_t capacity, std::shared_ptr<EmulatedFaults> faults)
      : capacity_(capacity), faults_(std::move(faults)) {}
  ~EmulatedRuntime() override {
    for (const auto& [data, memory] : memory_) {
      memory.protect(PROT_READ | PROT_WRITE);
      memory.hide();
    }
    for (const auto& [data, part] : parts_) part.drop();
  }

  [[nodiscard]] DeviceInfo info() const override {
    DeviceInfo info;
    info.name = "emulated";
    info.architecture = "host memory";
    info.total_bytes = capacity_;
    info.free_bytes = capacity_ - used_;
    return info;
  }

  [[nodiscard]] std::byte* allocate(std::size_t n_bytes) override {
    if (n_bytes == 0 || n_bytes > capacity_ - used_) {
      throw Error(ErrorCode::kResource,
                  "allocating " + std::to_string(n_bytes) + " bytes failed on the emulated device");
    }
    Memory memory(n_bytes);
    std::byte* data = memory.data();
    memory.protect(PROT_NONE);
    memory.show();
    memory_.emplace(data, std::move(memory));
    used_ += n_bytes;
    return data;
  }
  void free(std::byte* data) noexcept override {
    const auto found = memory_.find(data);
    if (found == memory_.end()) return;
    try {
      execute();
    } catch (...) {  // it was somebody's who has gone
    }
    used_ -= found->second.n_bytes();
    found->second.protect(PROT_READ | PROT_WRITE);
    found->second.hide();
    memory_.erase(found);
  }
  // Memory of its own. Threads open and close parts while another one waits for the device: what
  // kernels may touch changes between two waits.
  [[nodiscard]] std::byte* open_part(std::byte* part, std::size_t n_bytes) override {
    Memory memory(n_bytes);
    std::byte* data = memory.data();
    memory.protect(PROT_NONE);
    const std::lock_guard lock(parts_mutex_);
    parts_.emplace(data, Part{.memory = std::move(memory), .place = part});
    return data;
  }
  [[nodiscard]] std::byte* close_part(std::byte* part) noexcept override {
    const std::lock_guard lock(parts_mutex_);
    const auto found = parts_.find(part);
    if (found == parts_.end()) return part;
    found->second.closed = true;
    return found->second.place;
  }
  void note_parts(std::byte* data, std::size_t n_bytes,
                  const std::vector<stream::MemoryPart>& parts) override {
    (recording_ ? recorded_ : queue_).push_back([=] { cuda::set_parts(data, n_bytes, parts); });
  }
  [[nodiscard]] std::byte* allocate_pinned(std::size_t n_bytes) override {
    count(faults_->pinned, "pinned memory", ErrorCode::kResource);
    pinned_.emplace_back(n_bytes);
    return pinned_.back().data();
  }
  void free_pinned(std::byte* data) noexcept override {
    std::erase_if(pinned_, [data](const auto& memory) { return memory.data() == data; });
  }

  void upload(void* device, const void* host, std::size_t n_bytes) override {
    run([=] {
      std::memcpy(device, host, n_bytes);
      cuda::note_host_write(device, n_bytes);
    });
  }
  void download(void* host, const void* device, std::size_t n_bytes) override {
    const bool pinned = is_pinned(host);
    run([=, this] {
      if (!pinned || is_pinned(host)) {
        std::memcpy(host, device, n_bytes);
      } else {
        misuse_ = "a download to pinned memory that was freed";  // a recording may hold it
      }
    });
  }
  void copy(void* dst, const void* src, std::size_t n_bytes) override {
    run([=] {
      std::memmove(dst, src, n_bytes);
      cuda::note_host_write(dst, n_bytes);
    });
  }
  void fill(void* device, int byte, std::size_t n_bytes) override {
    run([=] {
      std::memset(device, byte, n_bytes);
      cuda::note_host_write(device, n_bytes);
    });
  }
  void launch(const char*, const std::function<void(void*)>& issue) override {
    run([issue] { issue(nullptr); });
  }

  void begin_recording() override {
    if (std::exchange(recording_, true)) throw Error(ErrorCode::kDevice, "recording twice");
  }
  [[nodiscard]] std::unique_ptr<stream::Recording> end_recording() override {
    recording_ = false;
    auto recording = std::make_unique<EmulatedRecording>(std::exchange(recorded_, {}));
    count(faults_->recordings, "recording", ErrorCode::kResource);
    return recording;
  }
  void abandon_recording() noexcept override {
    recording_ = false;
    recorded_.clear();
  }
  void play(stream::Recording& recording) override {
    count(faults_->issues, "issuing");
    for (const auto& work : static_cast<EmulatedRecording&>(recording).work())
      queue_.push_back(work);
  }

  void mark_begin() override { mark(begin_); }
  void mark_middle() override { mark(middle_); }
  void mark_end() override { mark(end_); }
  [[nodiscard]] double marked_ms() override { return ms(end_ - begin_); }
  [[nodiscard]] double marked_first_ms() override { return ms(middle_ - begin_); }

 private:
  using Clock = std::chrono::steady_clock;
  static double ms(Clock::duration time) {
    return std::chrono::duration<double, std::milli>(time).count();
  }

  void wait(const char*) override {
    if (recording_) throw Error(ErrorCode::kDevice, "waiting while recording");
    execute();
    count(faults_->waits, "waiting");
  }
  // Nothing is executed before somebody waits, so that host memory that is written too early or
  // read without a wait shows.
  void execute() {
    const Work queue = std::exchange(queue_, {});
    if (queue.empty()) return;
    protect(PROT_READ | PROT_WRITE);
    for (const auto& work : queue) work();
    cuda::note_idle();
    protect(PROT_NONE);
    drop_closed_parts();
    std::string error = cuda::take_emulator_error();
    if (error.empty()) error = std::exchange(misuse_, {});
    if (!error.empty()) throw Error(ErrorCode::kDevice, "the grid emulator: " + error);
  }
  [[nodiscard]] bool is_pinned(const void* host) const {
    for (const std::vector<std::byte>& memory : pinned_) {
      const std::less_equal<const void*> not_behind;
      if (not_behind(memory.data(), host) && !not_behind(memory.data() + memory.size(), host))
        return true;
    }
    return false;
  }
  void run(std::function<void()> work) {
    count(faults_->issues, "issuing");
    (recording_ ? recorded_ : queue_).push_back(std::move(work));
  }
  void mark(Clock::time_point& point) {
    queue_.emplace_back([&point] { point = Clock::now(); });
  }
  // Fails when a fault is due.
  static void count(std::atomic<int>& left, const char* what, ErrorCode code = ErrorCode::kDevice) {
    if (left > 0 && --left == 0) throw Error(code, std::string("injected: ") + what + " failed");
  }
  void protect(int rights) {
    for (auto& [data, memory] : memory_) memory.protect(rights);
    const std::lock_guard lock(parts_mutex_);
    for (auto& [data, part] : parts_) {
      part.memory.protect(rights);
      if (!std::exchange(part.shown, true)) part.memory.show();
    }
  }
  // Nothing that was queued before they were closed runs any more.
  void drop_closed_parts() {
    const std::lock_guard lock(parts_mutex_);
    for (auto part = parts_.begin(); part != parts_.end();) {
      if (part->second.closed) {
        part->second.drop();
        part = parts_.erase(part);
      } else {
        ++part;
      }
    }
  }

  std::size_t capacity_;
  std::shared_ptr<EmulatedFaults> faults_;
  std::size_t used_ = 0;
  std::map<std::byte*, Memory> memory_;
  struct Part {
    Memory memory;
    std::byte* place = nullptr;  // in the block
    bool shown = false, closed = false;
    void drop() const {
      memory.protect(PROT_READ | PROT_WRITE);
      memory.hide();
    }
  };
  std::mutex parts_mutex_;
  std::map<std::byte*, Part> parts_;
  std::vector<std::vector<std::byte>> pinned_;  // moving a vector keeps its data in place
  bool recording_ = false;
  Work recorded_, queue_;
  std::string misuse_;
  Clock::time_point begin_, middle_, end_;
};

}  // namespace

std::shared_ptr<DeviceBackend> make_emulated_device(std::size_t n_bytes,
                                                    std::shared_ptr<EmulatedFaults> faults) {
  return make_stream_backend(make_emulated_runtime(n_bytes, std::move(faults)),
                             cuda::emulated_kernels(), "emulated");
}

std::unique_ptr<stream::Runtime> make_emulated_runtime(std::size_t n_bytes,
                                                       std::shared_ptr<EmulatedFaults> faults) {
  if (faults == nullptr) faults = std::make_shared<EmulatedFaults>();
  return std::make_unique<EmulatedRuntime>(n_bytes, std::move(faults));
}

int emulated_launches() { return cuda::emulated_launches(); }

}  // namespace specdec::testing
