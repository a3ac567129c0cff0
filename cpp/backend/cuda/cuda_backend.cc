#include "backend/cuda/cuda_backend.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "backend/cuda/work_space.h"
#include "backend/device_slab.h"
#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/thread_pool.h"

namespace specdec::cuda {
namespace {

constexpr int kMostRecordedRows = 32;
constexpr std::size_t kMostRecordings = 256;

class CudaMatrix final : public WeightMatrix {
 public:
  CudaMatrix(PackedWeight weight, DeviceMemory memory)
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

const PackedWeight& packed(const WeightMatrix* matrix) {
  return static_cast<const CudaMatrix&>(*matrix).weight();
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

struct RecordingKey {
  DevicePassKey pass;
  int max_chunks = 0;
  auto operator<=>(const RecordingKey&) const = default;
};

class CudaBackend final : public DeviceBackend {
 public:
  CudaBackend(std::unique_ptr<Runtime> runtime, const Kernels& kernels, const char* name,
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
    info.batch_invariant = true;
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
    return packed_bytes(dtype, n_out, n_in);
  }
  [[nodiscard]] std::size_t work_bytes(const WorkShape& shape) const override {
    return WorkSpace(shape).n_bytes;
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
    runtime_->synchronize("an upload");
  }
  void download(void* host, const void* device, std::size_t n_bytes) override {
    const std::lock_guard lock(stream_mutex_);
    runtime_->download(host, device, n_bytes);
    runtime_->synchronize("a download");
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
  [[nodiscard]] std::unique_ptr<WeightMatrix> load_matrix(DType dtype, std::int64_t n_out,
                                                          std::int64_t n_in,
                                                          std::span<const std::byte> data) override;

  // --- passes
  [[nodiscard]] bool begin_pass(const DevicePass& pass) override;
  void finish_pass() override;
  void abort_pass() noexcept override;
  [[nodiscard]] const WorkBuffers& work() const override { return buffers_; }
  void forget(std::uint64_t model) noexcept override {
    const std::lock_guard lock(stream_mutex_);
    std::erase_if(recordings_, [model](const auto& e) { return e.first.pass.model == model; });
  }

  // --- operations, between begin_pass() and finish_pass()
  void linear(const LinearTask& task) override;
  void gated_linear(const GatedLinearTask& task) override;
  void rope_store(const RopeStoreTask& task) override;
  void attention(const AttentionTask& task) override;
  void add(float* dst, std::int64_t dst_stride, const float* x, std::int64_t x_stride, int n_rows,
           std::int64_t n) override {
    launch("add", kernels_.add,
           AddArgs{.dst = dst,
                   .dst_stride = dst_stride,
                   .x = x,
                   .x_stride = x_stride,
                   .n_rows = n_rows,
                   .n = n});
  }
  void head(const HeadTask& task) override;

 private:
  struct Reservation {
    RuntimeMemory memory;
    bool released = false;
  };

  void give_back(std::byte* data, std::size_t n_bytes) noexcept override {
    const std::lock_guard lock(slab_mutex_);
    slab_.give_back(data, n_bytes);
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
  void upload_inputs();
  void download_results();
  void copy_results(int first_row, int n_rows);
  [[nodiscard]] PreparedInput prepare(const float* x, std::int64_t x_stride, int n_rows,
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
  WorkBuffers buffers_;
  std::map<RecordingKey, std::unique_ptr<Recording>> recordings_;  // null: seen once

  DevicePass pass_;
  RecordingKey key_;
  bool recording_ = false, replaying_ = false;
  int head_rows_ = 0;  // results that wait on the device
  int head_top_k_ = 0;
  const std::int32_t* first_slot_ = nullptr;  // device

  mutable std::mutex stats_mutex_;
  DeviceStats stats_;
};

// --- memory --------------------------------------------------------------------------------------

int CudaBackend::reserve(std::size_t n_bytes, const WorkShape& shape) {
  const std::lock_guard stream_lock(stream_mutex_);
  WorkShape wanted = shape_;
  wanted.include(shape);
  const WorkSpace space(wanted);
  const std::size_t rows = static_cast<std::size_t>(wanted.max_rows);
  RuntimeMemory memory(*runtime_, DeviceSlab::aligned(n_bytes), false);
  // Buffers move only when they must: recordings hold their addresses.
  const bool moves = wanted != shape_ || work_memory_.data() == nullptr;
  RuntimeMemory work, pinned_in, pinned_out;
  if (moves) {
    work = RuntimeMemory(*runtime_, space.n_bytes, false);
    pinned_in = RuntimeMemory(
        *runtime_,
        DeviceSlab::aligned(space.inputs_bytes) + rows * space.hidden_row * sizeof(float), true);
    pinned_out = RuntimeMemory(
        *runtime_, space.scratch - space.top + rows * space.hidden_row * sizeof(float), true);
  }
  const std::lock_guard lock(slab_mutex_);
  if (moves) {
    recordings_.clear();
    work_memory_ = std::move(work);
    pinned_in_ = std::move(pinned_in);
    pinned_out_ = std::move(pinned_out);
  }
  shape_ = wanted;
  space_ = space;
  buffers_.hidden = at<float>(space_.hidden);
  buffers_.qkv = at<float>(space_.qkv);
  buffers_.attention = at<float>(space_.attention);
  buffers_.ffn = at<float>(space_.ffn);
  slab_.add(memory.data(), memory.size());
  const int id = next_reservation_++;
  reservations_[id].memory = std::move(memory);
  return id;
}

void CudaBackend::release(int reservation) noexcept {
  const std::lock_guard lock(slab_mutex_);
  const auto found = reservations_.find(reservation);
  if (found == reservations_.end()) return;
  found->second.released = true;
  const RuntimeMemory& memory = found->second.memory;
  if (slab_.remove(memory.data(), memory.size())) reservations_.erase(found);
}

DeviceMemory CudaBackend::allocate(std::size_t n_bytes, const char* what) {
  std::byte* data = nullptr;
  std::size_t free = 0;
  {
    const std::lock_guard lock(slab_mutex_);
    data = slab_.take(n_bytes);
    free = slab_.free_bytes();
  }
  if (data == nullptr) {
    throw Error(
        ErrorCode::kResource,
        std::string(what) + " needs " + std::to_string(n_bytes) + " bytes on the GPU, and " +
            std::to_string(free) +
            " of what the models reserved are free; end other sessions, use a smaller n_ctx "
            "or kv_type q8_0, or load the models with a larger n_ctx");
  }
  return {shared_from_this(), data, n_bytes};
}

std::unique_ptr<WeightMatrix> CudaBackend::load_matrix(DType dtype, std::int64_t n_out,
                                                       std::int64_t n_in,
                                                       std::span<const std::byte> data) {
  const std::size_t n_bytes = packed_bytes(dtype, n_out, n_in);
  DeviceMemory memory = allocate(n_bytes, "a weight matrix");
  AlignedBuffer host(n_bytes);
  pack_matrix(dtype, n_out, n_in, data.data(), host.data(), n_threads_);
  upload(memory.data(), host.data(), n_bytes);
  return std::make_unique<CudaMatrix>(PackedWeight{.dtype = dtype, .n_out = n_out, .n_in = n_in},
                                      std::move(memory));
}

double CudaBackend::measure_bandwidth() {
  constexpr std::size_t kBytes = std::size_t{256} << 20;
  constexpr int kCopies = 8;
  const std::lock_guard lock(stream_mutex_);
  try {
    const RuntimeMemory from(*runtime_, kBytes, false);
    const RuntimeMemory to(*runtime_, kBytes, false);
    double best_ms = 0;
    for (int round = 0; round < 4; ++round) {
      runtime_->mark_begin();
      for (int i = 0; i < kCopies; ++i) runtime_->copy(to.data(), from.data(), kBytes);
      runtime_->mark_end();
      runtime_->synchronize("measuring the memory's speed");
      const double ms = runtime_->marked_ms();
      if (round == 1 || (round > 1 && ms < best_ms)) best_ms = ms;
    }
    if (best_ms > 0) return 2.0 * kCopies * static_cast<double>(kBytes) / (best_ms / 1000);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kResource) throw;
  }
  return runtime_->info().copy_bytes_per_second;
}

// --- passes --------------------------------------------------------------------------------------

bool CudaBackend::begin_pass(const DevicePass& pass) {
  std::unique_lock lock(stream_mutex_);
  SPECDEC_CHECK(pass.n_rows >= 1 && pass.n_rows <= shape_.max_rows &&
                pass.hidden_stride <= static_cast<std::int64_t>(space_.hidden_row) &&
                pass.n_rot <= shape_.n_rot);
  const int n_positions = pass.first_slot + pass.n_rows;
  if (pass.key.tree && pass.n_rows > kTreeRows) {
    throw Error(ErrorCode::kUnsupported, "a tree of " + std::to_string(pass.n_rows) +
                                             " tokens is too large for the GPU, which takes " +
                                             std::to_string(kTreeRows) + "; use shorter drafts");
  }
  if (n_positions > space_.n_pages * kKvChunk) {
    throw Error(ErrorCode::kResource,
                "a cache of " + std::to_string(n_positions) +
                    " positions is longer than the models on the GPU were loaded for (" +
                    std::to_string(space_.n_pages * kKvChunk) + "); load them with a larger n_ctx");
  }
  pass_ = pass;
  key_ = {pass.key, chunk_bucket(n_positions, space_.n_pages)};
  recording_ = replaying_ = false;
  head_rows_ = 0;

  const PassInputs inputs(pass.n_rows, pass.n_rot, key_.max_chunks, pass.parents != nullptr,
                          static_cast<int>(pass.head_blocks.size()));
  const auto in = [&](std::size_t offset) { return pinned_in_.data() + offset; };
  const auto rows = static_cast<std::size_t>(pass.n_rows);
  const std::int32_t first_slot = pass.first_slot;
  std::memcpy(in(inputs.first_slot), &first_slot, sizeof first_slot);
  if (!pass.pages.empty()) {
    const std::size_t n = std::min(pass.pages.size(), static_cast<std::size_t>(key_.max_chunks));
    std::memcpy(in(inputs.pages), pass.pages.data(), n * sizeof(std::byte*));
  }
  if (pass.parents != nullptr) {
    std::memcpy(in(inputs.parents), pass.parents, rows * sizeof(std::int32_t));
  }
  std::memcpy(in(inputs.cos_sin), pass.cos_sin,
              rows * static_cast<std::size_t>(pass.n_rot) * sizeof(float));
  if (!pass.head_blocks.empty()) {
    std::memcpy(in(inputs.head_blocks), pass.head_blocks.data(), pass.head_blocks.size_bytes());
  }
  std::memcpy(in(DeviceSlab::aligned(space_.inputs_bytes)), pass.hidden,
              rows * static_cast<std::size_t>(pass.hidden_stride) * sizeof(float));
  first_slot_ = at<const std::int32_t>(space_.inputs + inputs.first_slot);
  buffers_.pages = at<std::byte* const>(space_.inputs + inputs.pages);
  buffers_.parents = at<const std::int32_t>(space_.inputs + inputs.parents);
  buffers_.cos_sin = at<const float>(space_.inputs + inputs.cos_sin);
  buffers_.head_blocks = at<const std::int32_t>(space_.inputs + inputs.head_blocks);

  // The first pass of a kind runs as it is, the second one is recorded: what comes once is not
  // worth a recording.
  runtime_->mark_begin();
  const int n_outputs = pass.n_rows - pass.key.first_output_row;
  if (pass.key.model != 0 && pass.n_rows <= kMostRecordedRows && n_outputs <= kHeadRows) {
    if (recordings_.size() >= kMostRecordings) recordings_.clear();
    const auto [entry, is_new] = recordings_.try_emplace(key_);
    if (entry->second != nullptr) {
      replaying_ = true;
      lock.release();  // until finish_pass()
      return false;
    }
    if (!is_new) {
      runtime_->begin_recording();
      recording_ = true;
    }
  }
  try {
    runtime_->upload(at<std::byte>(space_.inputs), pinned_in_.data(), inputs.n_bytes);
    runtime_->upload(at<std::byte>(space_.hidden), in(DeviceSlab::aligned(space_.inputs_bytes)),
                     rows * static_cast<std::size_t>(pass.hidden_stride) * sizeof(float));
  } catch (...) {
    if (recording_) runtime_->abandon_recording();
    throw;
  }
  lock.release();
  return true;
}

void CudaBackend::finish_pass() {
  if (replaying_) {
    runtime_->play(*recordings_.at(key_));
    if (pass_.top != nullptr) {
      head_rows_ = pass_.n_rows - pass_.key.first_output_row;
      head_top_k_ = pass_.key.top_k;
    }
  } else {
    download_results();
    if (recording_) {
      std::unique_ptr<Recording> recording = runtime_->end_recording();
      recording_ = false;
      runtime_->play(*recording);
      recordings_[key_] = std::move(recording);
    }
  }
  runtime_->mark_end();
  runtime_->synchronize("a forward pass");
  copy_results(0, head_rows_);
  if (pass_.hidden_out != nullptr) {
    const auto stride = static_cast<std::size_t>(pass_.hidden_stride);
    const auto first = static_cast<std::size_t>(pass_.first_hidden_row);
    const std::size_t n = (static_cast<std::size_t>(pass_.n_rows) - first) * stride;
    std::memcpy(pass_.hidden_out + first * stride,
                pinned_out_.data() + (space_.scratch - space_.top), n * sizeof(float));
  }
  {
    const std::lock_guard lock(stats_mutex_);
    ++stats_.n_passes;
    if (replaying_) ++stats_.n_replayed;
    stats_.device_ms += runtime_->marked_ms();
  }
  stream_mutex_.unlock();
}

void CudaBackend::abort_pass() noexcept {
  if (recording_) {
    runtime_->abandon_recording();
    recording_ = false;
  }
  try {
    runtime_->synchronize("ending a pass that failed");
  } catch (...) {  // what failed is on its way to the caller already
  }
  stream_mutex_.unlock();
}

// Results of the head lie together: one copy for all but logits.
void CudaBackend::download_results() {
  const auto out = [&](std::size_t offset) { return pinned_out_.data() + (offset - space_.top); };
  if (head_rows_ > 0) {
    runtime_->download(out(space_.top), at<std::byte>(space_.top), space_.logits - space_.top);
    if (pass_.logits != nullptr) {
      runtime_->download(out(space_.logits), at<std::byte>(space_.logits),
                         static_cast<std::size_t>(head_rows_) *
                             static_cast<std::size_t>(pass_.logits_stride) * sizeof(float));
    }
  }
  if (pass_.hidden_out != nullptr) {
    const auto stride = static_cast<std::size_t>(pass_.hidden_stride);
    const auto first = static_cast<std::size_t>(pass_.first_hidden_row);
    runtime_->download(pinned_out_.data() + (space_.scratch - space_.top),
                       at<float>(space_.hidden) + first * stride,
                       (static_cast<std::size_t>(pass_.n_rows) - first) * stride * sizeof(float));
  }
}

// To where the caller wants them, as output rows from first_row on.
void CudaBackend::copy_results(int first_row, int n_rows) {
  if (n_rows == 0) return;
  const auto out = [&](std::size_t offset) { return pinned_out_.data() + (offset - space_.top); };
  const auto first = static_cast<std::size_t>(first_row);
  const auto rows = static_cast<std::size_t>(n_rows);
  const auto k = static_cast<std::size_t>(head_top_k_);
  std::memcpy(pass_.top + first * k, out(space_.top), rows * k * sizeof(TopToken));
  if (pass_.log_sum_exp != nullptr)
    std::memcpy(pass_.log_sum_exp + first, out(space_.log_sum_exp), rows * sizeof(float));
  if (pass_.logits != nullptr) {
    const auto stride = static_cast<std::size_t>(pass_.logits_stride);
    std::memcpy(pass_.logits + first * stride, out(space_.logits), rows * stride * sizeof(float));
  }
}

// --- operations ----------------------------------------------------------------------------------

PreparedInput CudaBackend::prepare(const float* x, std::int64_t x_stride, int n_rows,
                                   std::int64_t n_in, const std::int32_t* row_index,
                                   const Norm& norm, std::initializer_list<DType> dtypes) {
  SPECDEC_CHECK(n_rows <= shape_.max_rows && n_in <= shape_.max_n_in);
  PreparedInput out;
  for (const DType dtype : dtypes) {
    const auto kind = static_cast<std::size_t>(input_kind(dtype));
    out.data[kind] = at<std::byte>(space_.prepared[kind]);
  }
  launch("norm and quantisation", kernels_.prepare,
         PrepareArgs{.x = x,
                     .x_stride = x_stride,
                     .n_rows = n_rows,
                     .n_in = n_in,
                     .row_index = row_index,
                     .norm = norm,
                     .out = out});
  return out;
}

void CudaBackend::linear(const LinearTask& task) {
  if (task.n_rows == 0 || task.segments.empty()) return;
  SPECDEC_CHECK(task.segments.size() <= kMaxSegments);
  LinearArgs args;
  args.n_rows = task.n_rows;
  args.n_segments = static_cast<int>(task.segments.size());
  DType dtypes[kMaxSegments];
  std::fill(std::begin(dtypes), std::end(dtypes), task.segments[0].weight->dtype());
  for (std::size_t i = 0; i < task.segments.size(); ++i) {
    const LinearSegment& segment = task.segments[i];
    dtypes[i] = segment.weight->dtype();
    args.segments[i] = {.weight = packed(segment.weight),
                        .bias = segment.bias,
                        .dst = segment.dst,
                        .dst_stride = segment.dst_stride,
                        .accumulate = segment.accumulate,
                        .activation = segment.activation};
  }
  static_assert(kMaxSegments == 4);
  args.input = prepare(task.x, task.x_stride, task.n_rows, task.segments[0].weight->n_in(),
                       task.row_index, task.norm, {dtypes[0], dtypes[1], dtypes[2], dtypes[3]});
  launch("linear", kernels_.linear, args);
}

void CudaBackend::gated_linear(const GatedLinearTask& task) {
  if (task.n_rows == 0) return;
  GatedArgs args{.input = {},
                 .n_rows = task.n_rows,
                 .gate = packed(task.gate),
                 .up = packed(task.up),
                 .activation = task.activation,
                 .dst = task.dst,
                 .dst_stride = task.dst_stride,
                 .scratch = at<std::byte>(space_.scratch)};
  args.input = prepare(task.x, task.x_stride, task.n_rows, task.gate->n_in(), nullptr, task.norm,
                       {task.gate->dtype(), task.up->dtype()});
  launch("gated linear", kernels_.gated_linear, args);
}

void CudaBackend::rope_store(const RopeStoreTask& task) {
  if (task.n_rows == 0) return;
  launch("rope and store", kernels_.rope_store,
         RopeStoreArgs{.n_rows = task.n_rows,
                       .n_heads = task.n_heads,
                       .n_kv_heads = task.n_kv_heads,
                       .head_dim = task.head_dim,
                       .n_rot = task.n_rot,
                       .interleaved = task.interleaved,
                       .cos_sin = task.cos_sin,
                       .q = task.q,
                       .k = task.k,
                       .v = task.v,
                       .q_stride = task.q_stride,
                       .k_stride = task.k_stride,
                       .v_stride = task.v_stride,
                       .layout = task.cache.layout,
                       .pages = task.cache.pages,
                       .page_offset = task.cache.page_offset,
                       .first_slot = first_slot_,
                       .slot_offset = task.first_slot - pass_.first_slot});
}

void CudaBackend::attention(const AttentionTask& task) {
  if (task.n_rows == 0) return;
  AttentionArgs args{.n_rows = task.n_rows,
                     .n_heads = task.n_heads,
                     .n_kv_heads = task.n_kv_heads,
                     .head_dim = task.head_dim,
                     .scale = task.scale,
                     .q = task.q,
                     .out = task.out,
                     .q_stride = task.q_stride,
                     .out_stride = task.out_stride,
                     .layout = task.cache.layout,
                     .pages = task.cache.pages,
                     .page_offset = task.cache.page_offset,
                     .first_slot = first_slot_,
                     .slot_offset = task.first_slot - pass_.first_slot,
                     .parents = task.parents,
                     .max_chunks = key_.max_chunks,
                     .scratch = at<std::byte>(space_.scratch)};
  // Of a chain, rows before a piece count as committed.
  int piece = task.n_rows;
  while (piece > 1 && attention_scratch_bytes(piece, task.n_heads, task.head_dim, args.max_chunks) >
                          space_.attention_bytes) {
    SPECDEC_CHECK(task.parents == nullptr);
    piece = (piece + 1) / 2;
  }
  for (int row = 0; row < task.n_rows; row += piece) {
    AttentionArgs part = args;
    part.n_rows = std::min(piece, task.n_rows - row);
    part.q += row * args.q_stride;
    part.out += row * args.out_stride;
    part.slot_offset += row;
    launch("attention", kernels_.attention, part);
  }
}

void CudaBackend::head(const HeadTask& task) {
  const int n_blocks = static_cast<int>(task.blocks.size());
  for (int row = 0; row < task.n_rows; row += kHeadRows) {
    const int n_rows = std::min(kHeadRows, task.n_rows - row);
    HeadArgs args{
        .input = {},
        .n_rows = n_rows,
        .weight = packed(task.weight),
        .bias = task.bias,
        .n_tokens = task.n_tokens,
        .blocks = n_blocks > 0 ? buffers_.head_blocks : nullptr,
        .n_blocks = n_blocks,
        .top_k = task.top_k,
        .top = at<TopToken>(space_.top),
        .log_sum_exp = task.log_sum_exp != nullptr ? at<float>(space_.log_sum_exp) : nullptr,
        .logits = task.logits != nullptr ? at<float>(space_.logits) : nullptr,
        .logits_stride = task.logits_stride,
        .scratch = at<std::byte>(space_.scratch)};
    args.input = prepare(task.x + row * task.x_stride, task.x_stride, n_rows, task.weight->n_in(),
                         nullptr, task.norm, {task.weight->dtype()});
    launch("output head", kernels_.head, args);
    head_rows_ = n_rows;
    head_top_k_ = task.top_k;
    if (task.n_rows <= kHeadRows) return;  // finish_pass() fetches them
    // More rows than there is room for: fetched piece by piece.
    SPECDEC_CHECK(!recording_);
    download_results();
    runtime_->synchronize("the output head");
    copy_results(row, n_rows);
    head_rows_ = 0;
  }
}

}  // namespace

std::shared_ptr<DeviceBackend> make_backend(std::unique_ptr<Runtime> runtime,
                                            const Kernels& kernels, const char* name,
                                            int n_threads) {
  return std::make_shared<CudaBackend>(std::move(runtime), kernels, name, n_threads);
}

}  // namespace specdec::cuda
