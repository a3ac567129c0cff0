// A backend with memory of its own (a GPU): what a forward pass needs besides the operations.
// Pointers in tasks are pointers of the device. Nothing is allocated after load: models reserve
// what they will ever need, and everything later is a part of that.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"

namespace specdec {

class DeviceBackend;

// A part of the reserved memory; goes back when it is destroyed, and keeps its device alive.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(std::shared_ptr<DeviceBackend> device, std::byte* data, std::size_t n_bytes)
      : device_(std::move(device)), data_(data), n_bytes_(n_bytes) {}
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(n_bytes_, other.n_bytes_);
    return *this;
  }

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return n_bytes_; }
  template <class T>
  [[nodiscard]] T* as() const noexcept {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::shared_ptr<DeviceBackend> device_;
  std::byte* data_ = nullptr;
  std::size_t n_bytes_ = 0;
};

struct DeviceInfo {
  int index = 0;
  std::string name;          // "NVIDIA GeForce RTX 3060"
  std::string architecture;  // "sm_86"
  int n_processors = 0;
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;      // of the system, when asked
  std::uint64_t cache_bytes = 0;     // of its last cache; 0: unknown
  double copy_bytes_per_second = 0;  // the memory's nominal speed; 0: unknown
};

// What the buffers of a pass are made for: the largest of everything, over the models of a device.
struct WorkShape {
  int max_rows = 0;
  std::int64_t hidden_size = 0, qkv_size = 0, q_size = 0, ffn_size = 0;
  std::int64_t max_n_in = 0;  // of any matrix
  std::int64_t n_tokens = 0;  // rows of the head
  int n_heads = 0, n_kv_heads = 0, head_dim = 0, n_rot = 0;
  int n_ctx = 0;                          // positions a cache holds at most
  int n_experts = 0, n_experts_used = 0;  // of mixtures
  std::int64_t expert_size = 0;

  void include(const WorkShape& other);
  bool operator==(const WorkShape&) const = default;
};

// What work buffers take about, for devices that are not there.
[[nodiscard]] std::size_t estimated_work_bytes(const WorkShape& shape);

// Row buffers of the pass that runs. Rows are padded to `padded_row()` floats.
struct WorkBuffers {
  float* hidden = nullptr;                // [max_rows, hidden_size]
  float* qkv = nullptr;                   // [max_rows, qkv_size]
  float* attention = nullptr;             // [max_rows, q_size]
  float* ffn = nullptr;                   // [max_rows, ffn_size]
  const std::int32_t* tokens = nullptr;   // [max_rows]
  const float* cos_sin = nullptr;         // as in the pass
  const std::int32_t* parents = nullptr;  // [max_rows]
  std::byte* const* pages = nullptr;      // of the pass's cache
  const std::int32_t* head_blocks = nullptr;
  std::int32_t* experts = nullptr;  // [max_rows, n_experts_used] of mixtures
  float* expert_weights = nullptr;
};

// Rows whose experts a device computes together; of more it takes so many at a time.
inline constexpr int kExpertRows = 128;
// Steps that a pass makes by itself at most.
inline constexpr int kMaxSteps = 8;
// Rows of a pass that follows steps at most.
inline constexpr int kMaxFollowingRows = 16;

// Passes with equal keys issue the same operations with the same pointers of weights and buffers:
// the second one can be played from a recording of the first. Numbers of head blocks need not be
// equal: the device has lists of few lengths.
struct DevicePassKey {
  std::uint64_t model = 0;  // unique in the process; 0: not recorded
  int first_layer = 0, last_layer = 0;
  int n_rows = 0, first_output_row = 0;
  int n_steps = 1;
  int output = 0;  // what the caller wants, any number that tells the kinds apart
  int top_k = 0;
  int n_head_blocks = 0;
  int kv_type = 0;
  bool tree = false, embeds = false, wants_hidden = false;
  // Its inputs and results are staged apart from those of other passes, so that one may follow.
  bool leads = false;
  bool follows = false;            // one that leads, whose results are among its inputs
  std::vector<std::int32_t> taps;  // layers, in the order in which there is a save_tap()

  auto operator<=>(const DevicePassKey&) const = default;
};

// The part of a forward pass that a device runs: all that differs between passes of one key. With
// n_steps > 1 steps: after its rows, of which the last has output, follow n_steps - 1 rows more,
// one at a time, each of the best token of the row before.
struct DevicePass {
  DevicePassKey key;
  int n_rows = 0;
  int n_steps = 1;     // at most kMaxSteps
  int first_slot = 0;  // where the first row goes in the cache
  // Host, [n_rows]: tokens for an embed(), when key.embeds says that there will be one; else
  // [n_rows, hidden_stride]: the residual stream so far.
  const TokenId* tokens = nullptr;
  // Host, [n_rows], of a pass that follows: a row whose pick is not negative has, instead of its
  // token, that of the leading pass's results: step * its top_k + rank.
  const std::int32_t* picks = nullptr;
  const float* hidden = nullptr;
  std::int64_t hidden_stride = 0;  // floats, also of the device's rows
  const float* cos_sin = nullptr;  // host, [n_rows + n_steps - 1, n_rot], any order
  int n_rot = 0;
  const std::int32_t* parents = nullptr;      // host, [n_rows], or null for a chain
  std::span<std::byte* const> pages;          // device parts of the cache's pages
  std::span<const std::int32_t> head_blocks;  // host
  // Results, on the host, filled by finish_pass(). What a head() in between computes, as HeadTask
  // has it, or the head() of every step, one row each; and the residual stream of rows
  // [first_hidden_row, n_rows), `hidden_stride` apart.
  TopToken* top = nullptr;
  float* log_sum_exp = nullptr;
  float* logits = nullptr;
  std::int64_t logits_stride = 0;
  float* hidden_out = nullptr;
  int first_hidden_row = 0;
  // Likewise the residual stream of all rows at each save_tap(), tap_size floats of a row: of the
  // i-th from i tap_size on in [n_rows, taps_stride].
  float* taps_out = nullptr;
  std::int64_t taps_stride = 0, tap_size = 0;

  // Rows that are fed, and those with output.
  [[nodiscard]] int n_fed() const { return n_rows + n_steps - 1; }
  [[nodiscard]] int n_outputs() const { return n_fed() - key.first_output_row; }
};

struct EmbedTask {
  const WeightMatrix* weight = nullptr;
  const TokenId* tokens = nullptr;  // [n_rows]
  int n_rows = 0;
  float* dst = nullptr;  // [n_rows, dst_stride]
  std::int64_t dst_stride = 0;
  float scale = 1;
};

struct DeviceStats {
  std::int64_t n_passes = 0;
  std::int64_t n_replayed = 0;  // of them, from a recording
  std::int64_t n_waits = 0;     // of the host for the device, also between passes
  double device_ms = 0;         // the device's own clock, 0 where it has none
};

class DeviceBackend : public Backend, public std::enable_shared_from_this<DeviceBackend> {
 public:
  [[nodiscard]] virtual DeviceInfo device_info() const = 0;
  [[nodiscard]] virtual DeviceStats device_stats() const = 0;

  // Bytes of device memory read per second by a large copy, both ways counted. Takes and returns
  // memory of its own: for benchmarks.
  [[nodiscard]] virtual double measure_bandwidth() = 0;

  // Bytes a matrix will take on the device, and the buffers of passes of this shape.
  [[nodiscard]] virtual std::size_t matrix_bytes(DType dtype, std::int64_t n_out,
                                                 std::int64_t n_in) const = 0;
  [[nodiscard]] virtual std::size_t stack_bytes(DType dtype, std::int64_t n_out, std::int64_t n_in,
                                                int n_matrices) const = 0;
  [[nodiscard]] virtual std::size_t work_bytes(const WorkShape& shape) const = 0;

  // Takes memory for a model: n_bytes for its weights and caches, and what work buffers grow by to
  // fit `shape`. Throws Error(kResource) with what is free; then nothing has changed. The only call
  // that takes the device's memory. The result names the reservation.
  [[nodiscard]] virtual int reserve(std::size_t n_bytes, const WorkShape& shape) = 0;
  // Gives a reservation back, at the latest when what was allocated from it has come back.
  virtual void release(int reservation) noexcept = 0;
  [[nodiscard]] virtual std::size_t reserved_bytes() const = 0;  // all of it, work buffers too
  [[nodiscard]] virtual std::size_t work_reserved_bytes() const = 0;
  [[nodiscard]] virtual std::size_t free_bytes() const = 0;  // reserved and not allocated
  // A part of what is reserved; Error(kResource) naming `what` when there is none.
  [[nodiscard]] virtual DeviceMemory allocate(std::size_t n_bytes, const char* what) = 0;

  // The matrices of all experts, which follow each other in `data`: one for an ExpertsTask's list.
  [[nodiscard]] virtual std::unique_ptr<WeightMatrix> load_stack(
      DType dtype, std::int64_t n_out, std::int64_t n_in, int n_matrices,
      std::span<const std::byte> data) = 0;

  // Done when they return.
  virtual void upload(void* device, const void* host, std::size_t n_bytes) = 0;
  virtual void download(void* host, const void* device, std::size_t n_bytes) = 0;
  virtual void fill(void* device, int byte, std::size_t n_bytes) = 0;

  // As kv/page_ops.h, for the device's part of a page: `n_layers` layers.
  virtual void copy_kv_prefix(const KvLayout& layout, int n_layers, const std::byte* src,
                              std::byte* dst, int n_positions) = 0;
  virtual void copy_kv_position(const KvLayout& layout, int n_layers, const std::byte* src,
                                int from, std::byte* dst, int to) = 0;

  // Drops the recordings of a model that goes.
  virtual void forget(std::uint64_t model) noexcept = 0;

  // One pass at a time: begin_pass() waits for others, uploads the inputs and returns false when a
  // recording of the same key will be played, so that no operation is to be issued. finish_pass()
  // waits for the device: the only wait of a pass. abort_pass() after an exception in between; then
  // the device can be used again.
  [[nodiscard]] virtual bool begin_pass(const DevicePass& pass) = 0;
  // After the operations of one that leads: another pass that is not to wait for it, as
  // begin_pass(). finish_pass() then completes both.
  [[nodiscard]] virtual bool follow_pass(const DevicePass& pass) = 0;
  // Returns the part of the device's time that a pass took which was followed; else 0.
  virtual double finish_pass() = 0;
  virtual void abort_pass() noexcept = 0;
  [[nodiscard]] virtual const WorkBuffers& work() const = 0;
  // dst[r, :] = row tokens[r] of the matrix, times scale.
  virtual void embed(const EmbedTask& task) = 0;
  // Between steps, after the head() of one: the token that it will have found best, for the next
  // step's embed(). The results of the next head() go behind those of this one.
  [[nodiscard]] virtual const TokenId* next_step() = 0;
  // Between layers: what work().hidden holds then is the next of the pass's taps. They go to host
  // memory that is taken when a pass first has any: begin_pass() throws Error(kResource) where
  // there is none.
  virtual void save_tap() = 0;

 private:
  friend class DeviceMemory;
  virtual void give_back(std::byte* data, std::size_t n_bytes) noexcept = 0;
};

inline DeviceMemory::~DeviceMemory() {
  if (device_ != nullptr) device_->give_back(data_, n_bytes_);
}

// --- CUDA, or the stub that stands in for it -----------------------------------------------------

// The CUDA devices of this machine. Empty: `reason` says why (no driver, no device, not built).
[[nodiscard]] std::vector<DeviceInfo> cuda_devices(std::string* reason = nullptr);
// "13.0" of the toolkit it was built with; "" without CUDA.
[[nodiscard]] std::string cuda_build_version();
// The one backend of a device in this process. Throws Error(kUnsupported) when the build has no
// CUDA, Error(kDevice) when the device cannot be used.
[[nodiscard]] std::shared_ptr<DeviceBackend> make_cuda_backend(int device);

}  // namespace specdec
