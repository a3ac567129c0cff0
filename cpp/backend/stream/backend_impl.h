// The class behind stream_backend.h; only its sources include this.
#pragma once

#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "backend/device_slab.h"
#include "backend/stream/stream_backend.h"
#include "backend/stream/work_space.h"
#include "base/error.h"
#include "base/thread_pool.h"

namespace specdec::stream {

class StreamMatrix final : public WeightMatrix {
 public:
  StreamMatrix(PackedWeight weight, DeviceMemory memory)
      : weight_(weight), memory_(std::move(memory)) {
    weight_.data = memory_.data();
  }
  [[nodiscard]] DType dtype() const override { return weight_.dtype; }
  [[nodiscard]] std::int64_t n_out() const override { return weight_.n_out; }
  [[nodiscard]] std::int64_t n_in() const override { return weight_.n_in; }
  [[nodiscard]] std::size_t n_bytes() const override { return memory_.size(); }
  [[nodiscard]] const PackedWeight& weight() const { return weight_; }

 private:
  PackedWeight weight_;
  DeviceMemory memory_;
};

inline const PackedWeight& packed(const WeightMatrix* matrix) {
  return static_cast<const StreamMatrix&>(*matrix).weight();
}

// Memory of the runtime, given back with it.
class RuntimeMemory {
 public:
  RuntimeMemory() = default;
  RuntimeMemory(Runtime& runtime, std::size_t n_bytes, bool pinned)
      : runtime_(&runtime),
        pinned_(pinned),
        n_bytes_(n_bytes),
        data_(pinned ? runtime.allocate_pinned(n_bytes) : runtime.allocate(n_bytes)) {}
  ~RuntimeMemory() {
    if (data_ == nullptr) return;
    pinned_ ? runtime_->free_pinned(data_) : runtime_->free(data_);
  }
  RuntimeMemory(RuntimeMemory&& other) noexcept { *this = std::move(other); }
  RuntimeMemory& operator=(RuntimeMemory&& other) noexcept {
    std::swap(runtime_, other.runtime_);
    std::swap(pinned_, other.pinned_);
    std::swap(n_bytes_, other.n_bytes_);
    std::swap(data_, other.data_);
    return *this;
  }
  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return n_bytes_; }

 private:
  Runtime* runtime_ = nullptr;
  bool pinned_ = false;
  std::size_t n_bytes_ = 0;
  std::byte* data_ = nullptr;
};

// Passes of more rows come seldom and take long: they are not recorded.
inline constexpr int kMostRecordedRows = 32;

struct RecordingKey {
  DevicePassKey pass;
  int max_chunks = 0;
  auto operator<=>(const RecordingKey&) const = default;
};

class StreamBackend final : public DeviceBackend {
 public:
  StreamBackend(std::unique_ptr<Runtime> runtime, const Kernels& kernels, const char* name,
                int n_threads)
      : runtime_(std::move(runtime)),
        kernels_(kernels),
        name_(name),
        n_threads_(n_threads == 0 ? ThreadPool::default_n_threads() : n_threads) {}

  [[nodiscard]] BackendInfo info() const override {
    const DeviceInfo device = runtime_->info();
    BackendInfo info;
    info.name = name_;
    info.description = device.name + ", " + device.architecture;
    info.n_threads = n_threads_;
    return info;
  }
  [[nodiscard]] DeviceInfo device_info() const override { return runtime_->info(); }
  [[nodiscard]] DeviceStats device_stats() const override {
    const std::lock_guard lock(stats_mutex_);
    return stats_;
  }
  [[nodiscard]] double measure_bandwidth() override;

  // --- memory
  [[nodiscard]] std::size_t matrix_bytes(DType dtype, std::int64_t n_out,
                                         std::int64_t n_in) const override {
    return kernels_.memory.packed_bytes(dtype, n_out, n_in);
  }
  [[nodiscard]] std::size_t stack_bytes(DType dtype, std::int64_t n_out, std::int64_t n_in,
                                        int n_matrices) const override {
    return matrix_bytes(dtype, n_matrices * padded_rows(n_out), n_in);
  }
  [[nodiscard]] std::size_t work_bytes(const WorkShape& shape) const override {
    return WorkSpace(shape, kernels_.memory).n_bytes;
  }
  [[nodiscard]] int reserve(std::size_t n_bytes, const WorkShape& shape) override;
  void release(int reservation) noexcept override;
  [[nodiscard]] std::size_t reserved_bytes() const override {
    const std::lock_guard lock(slab_mutex_);
    std::size_t n_bytes = work_memory_.size();
    for (const auto& [id, reservation] : reservations_) n_bytes += reservation.memory.size();
    return n_bytes;
  }
  [[nodiscard]] std::size_t work_reserved_bytes() const override {
    const std::lock_guard lock(slab_mutex_);
    return work_memory_.size();
  }
  [[nodiscard]] std::size_t free_bytes() const override {
    const std::lock_guard lock(slab_mutex_);
    return slab_.free_bytes();
  }
  [[nodiscard]] DeviceMemory allocate(std::size_t n_bytes, const char* what) override;

  void upload(void* device, const void* host, std::size_t n_bytes) override {
    const std::lock_guard lock(stream_mutex_);
    runtime_->upload(device, host, n_bytes);
    wait("an upload");
  }
  void download(void* host, const void* device, std::size_t n_bytes) override {
    const std::lock_guard lock(stream_mutex_);
    runtime_->download(host, device, n_bytes);
    wait("a download");
  }
  void fill(void* device, int byte, std::size_t n_bytes) override {
    const std::lock_guard lock(stream_mutex_);
    runtime_->fill(device, byte, n_bytes);
  }
  // The whole page: one copy is quicker than many short ones.
  void copy_kv_prefix(const KvLayout& layout, int n_layers, const std::byte* src, std::byte* dst,
                      int) override {
    const std::lock_guard lock(stream_mutex_);
    runtime_->copy(dst, src, layout.layer_bytes() * static_cast<std::size_t>(n_layers));
  }
  void copy_kv_position(const KvLayout& layout, int n_layers, const std::byte* src, int from,
                        std::byte* dst, int to) override {
    const std::lock_guard lock(stream_mutex_);
    launch("moving a position of the KV cache", kernels_.copy_position,
           CopyPositionArgs{.layout = layout,
                            .n_layers = n_layers,
                            .src = src,
                            .dst = dst,
                            .from = from,
                            .to = to});
  }
  [[nodiscard]] std::unique_ptr<WeightMatrix> load_matrix(
      DType dtype, std::int64_t n_out, std::int64_t n_in,
      std::span<const std::byte> data) override {
    return load({.dtype = dtype, .n_out = n_out, .n_in = n_in}, n_out, data);
  }
  [[nodiscard]] std::unique_ptr<WeightMatrix> load_stack(DType dtype, std::int64_t n_out,
                                                         std::int64_t n_in, int n_matrices,
                                                         std::span<const std::byte> data) override;

  // --- passes
  [[nodiscard]] bool begin_pass(const DevicePass& pass) override;
  [[nodiscard]] bool follow_pass(const DevicePass& pass) override;
  double finish_pass() override;
  void abort_pass() noexcept override;
  [[nodiscard]] const WorkBuffers& work() const override { return buffers_; }
  void forget(std::uint64_t model) noexcept override {
    const std::lock_guard lock(stream_mutex_);
    std::erase_if(recordings_, [model](const auto& e) { return e.first.pass.model == model; });
  }
  void embed(const EmbedTask& task) override {
    launch("embedding", kernels_.embed,
           EmbedArgs{.weight = packed(task.weight),
                     .tokens = task.tokens,
                     .n_rows = task.n_rows,
                     .dst = task.dst,
                     .dst_stride = task.dst_stride,
                     .scale = task.scale});
  }
  [[nodiscard]] const TokenId* next_step() override;
  void save_tap() override;

  // --- operations, between begin_pass() and finish_pass()
  void linear(const LinearTask& task) override;
  void gated_linear(const GatedLinearTask& task) override;
  void rope_store(const RopeStoreTask& task) override;
  void attention(const AttentionTask& task) override;
  void norm(const NormTask& task) override {
    SPECDEC_CHECK(task.x_group == 0 || task.x_group == task.n);
    issue_rope();
    if (task.n_rows > 0) launch("norm", kernels_.norm, task);
  }
  void head(const HeadTask& task) override;
  void route(const RouteTask& task) override;
  void experts(const ExpertsTask& task) override;

 private:
  struct Reservation {
    RuntimeMemory memory;
    bool released = false;
  };

  void give_back(std::byte* data, std::size_t n_bytes) noexcept override {
    const std::lock_guard lock(slab_mutex_);
    slab_.give_back(runtime_->close_part(data), n_bytes);
    std::erase_if(reservations_, [this](auto& entry) {
      const Reservation& reservation = entry.second;
      return reservation.released &&
             slab_.remove(reservation.memory.data(), reservation.memory.size());
    });
  }

  template <class Args>
  void launch(const char* what, void (*kernel)(const Args&, Stream), const Args& args) {
    runtime_->launch(what, [kernel, args](void* stream) { kernel(args, stream); });
  }
  template <class T>
  [[nodiscard]] T* at(std::size_t offset) const {
    return reinterpret_cast<T*>(work_memory_.data() + offset);
  }
  void wait(const char* what) {
    runtime_->synchronize(what);
    const std::lock_guard lock(stats_mutex_);
    stats_.n_waits = runtime_->n_waits();
  }
  [[nodiscard]] std::unique_ptr<WeightMatrix> load(const PackedWeight& weight, std::int64_t n_rows,
                                                   std::span<const std::byte> data);
  void add_experts(const ExpertsTask& task);
  void issue_rope();
  void note_first(const RecordingKey& key);
  // Host memory that copies of the present pass use.
  struct Staging {
    std::byte* in;
    std::byte* out;
  };
  [[nodiscard]] Staging staging() const {
    if (pass_.key.leads) return {lead_in_.data(), lead_out_.data()};
    return {pinned_in_.data(), pinned_out_.data()};
  }
  [[nodiscard]] bool start_pass(const DevicePass& pass);
  [[nodiscard]] std::unique_ptr<Recording> end_recording();
  void submit_pass();
  [[nodiscard]] PassInputs put_inputs();
  void upload_inputs(const PassInputs& inputs);
  void download_results();
  void copy_results(int first_row, int n_rows);
  void hand_over();
  void require_taps(const DevicePass& pass);
  void copy_taps() const;
  [[nodiscard]] PackedInput pack_input(const float* x, std::int64_t x_stride, int n_rows,
                                       std::int64_t n_in, const std::int32_t* row_index,
                                       const Norm& norm, std::initializer_list<DType> dtypes);

  const std::unique_ptr<Runtime> runtime_;
  const Kernels& kernels_;
  const std::string name_;
  const int n_threads_;

  mutable std::mutex slab_mutex_;  // the slab and what it is made of
  DeviceSlab slab_;
  std::map<int, Reservation> reservations_;
  int next_reservation_ = 0;

  std::mutex stream_mutex_;  // everything below, from begin_pass() to finish_pass()
  WorkShape shape_;
  WorkSpace space_;
  RuntimeMemory work_memory_, pinned_in_, pinned_out_;
  RuntimeMemory lead_in_,
      lead_out_;               // of passes that lead: another may follow before they are done
  RuntimeMemory pinned_taps_;  // [taps, rows, hidden_stride] of the passes that had most
  WorkBuffers buffers_;
  std::map<RecordingKey, std::unique_ptr<Recording>> recordings_;  // null: seen once
  std::map<RecordingKey, std::unique_ptr<Recording>> retired_;     // until the next wait
  bool records_ = true;                                            // until memory for one was short

  DevicePass pass_;
  RecordingKey key_;
  bool recording_ = false, replaying_ = false;
  RopeStoreArgs rope_;  // what rope_store() has left to attention
  int step_ = 0;        // of several
  int head_rows_ = 0;   // results that wait on the device
  int head_top_k_ = 0;
  std::size_t n_tapped_ = 0;                  // of the pass's taps, those that are on their way
  const std::int32_t* first_slot_ = nullptr;  // device
  // The pass that the present one follows.
  struct Followed {
    DevicePass pass;
    bool replaying = false;
    int head_rows = 0, head_top_k = 0;
  };
  std::optional<Followed> followed_;

  mutable std::mutex stats_mutex_;
  DeviceStats stats_;
};

}  // namespace specdec::stream
