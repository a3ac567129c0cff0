#include "backend/cpu/attention_plan.h"

#include <algorithm>

#include "backend/cpu/ops.h"
#include "base/error.h"

namespace specdec {
namespace {

constexpr int ceil_div(std::int64_t a, std::int64_t b) { return static_cast<int>((a + b - 1) / b); }

// Of many rows at the end of a long context they would be hundreds of megabytes, which nobody has
// counted.
constexpr std::size_t kMostPartialBytes = std::size_t{64} << 20;

class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <class T>
  void take(T*& out, std::size_t n) {
    if (base_ != nullptr) out = reinterpret_cast<T*>(base_ + used_);
    used_ += (n * sizeof(T) + 63) / 64 * 64;
  }
  [[nodiscard]] std::size_t used() const { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

}  // namespace

AttentionPlan::AttentionPlan(const AttentionTask& task, int n_threads) {
  group = task.n_heads / task.n_kv_heads;
  n_queries = task.n_rows * group;
  window = task.window;
  n_chunks = ceil_div(static_cast<std::int64_t>(task.first_slot) + task.n_rows, kKvChunk);
  first_chunk = first_seen(task.first_slot + 1) / kKvChunk;
  n_tiles = ceil_div(n_queries, kMaxTileRows);
  // Few heads and many threads: smaller tiles, down to one query.
  const int n_wanted = ceil_div(n_threads, static_cast<std::int64_t>(task.n_kv_heads) * n_used());
  n_tiles = std::min(n_queries, std::max(n_tiles, n_wanted));
  tile_rows = ceil_div(n_queries, n_tiles);
  n_tiles = ceil_div(n_queries, tile_rows);
  // Chunks are split only where whole tiles would leave threads idle: partial results cost memory.
  const int n_units = task.n_kv_heads * n_tiles;
  thread_bytes = AttentionWorkspace(task, *this, nullptr).n_bytes;
  const auto n_partial = static_cast<std::size_t>(task.n_kv_heads) *
                         static_cast<std::size_t>(n_queries) * static_cast<std::size_t>(n_used());
  const auto v_stride = static_cast<std::size_t>(task.cache.layout.v_stride());
  const std::size_t n_bytes = n_partial * (v_stride + 2) * sizeof(float);
  split_chunks = n_used() > 1 && n_units % n_threads != 0 && n_units < 4 * n_threads &&
                 n_bytes <= kMostPartialBytes;
  if (split_chunks) partial_bytes = n_bytes;
}

AttentionWorkspace::AttentionWorkspace(const AttentionTask& task, const AttentionPlan& plan,
                                       std::byte* base) {
  const auto head_dim = static_cast<std::size_t>(task.head_dim);
  const auto v_stride = static_cast<std::size_t>(task.cache.layout.v_stride());
  const auto rows = static_cast<std::size_t>(plan.tile_rows);
  const auto n_rows = static_cast<std::size_t>(task.n_rows);
  Carver carver(base);
  carver.take(q, head_dim * (rows + 8));  // the last register group is padded
  carver.take(scores, rows * kScoreStride);
  carver.take(chunk_out, rows * v_stride);
  carver.take(sum_out, rows * v_stride);
  carver.take(chunk_max, rows);
  carver.take(chunk_sum, rows);
  carver.take(max, rows);
  carver.take(sum, rows);
  carver.take(k, static_cast<std::size_t>(kKvStep) * head_dim);
  carver.take(v, static_cast<std::size_t>(kKvStep) * v_stride);
  carver.take(gathered, static_cast<std::size_t>(kKvLane) * (head_dim * 4 + 2 * (head_dim / 32)));
  carver.take(depth, n_rows);
  carver.take(path, n_rows);
  n_bytes = carver.used();
}

std::size_t attention_scratch_bytes(const AttentionTask& task, int n_threads) {
  const AttentionPlan plan(task, n_threads);
  return plan.thread_bytes * static_cast<std::size_t>(n_threads) + plan.partial_bytes;
}

void check_attention(const AttentionTask& task) {
  const KvLayout& layout = task.cache.layout;
  SPECDEC_CHECK(task.n_rows >= 1 && task.first_slot >= 0 && task.window >= 0 && task.soft_cap >= 0);
  SPECDEC_CHECK(task.n_kv_heads >= 1 && task.n_heads >= task.n_kv_heads &&
                task.n_heads % task.n_kv_heads == 0);
  SPECDEC_CHECK(task.head_dim >= 1 && task.head_dim <= kMaxHeadDim);
  SPECDEC_CHECK(layout.head_dim == task.head_dim && layout.n_kv_heads == task.n_kv_heads);
  SPECDEC_CHECK(layout.type != KvType::kQ8_0 || task.head_dim % 32 == 0);
  if (task.parents == nullptr) return;
  for (int r = 0; r < task.n_rows; ++r) SPECDEC_CHECK(task.parents[r] >= -1 && task.parents[r] < r);
}

void check_rope_store(const RopeStoreTask& task) {
  const KvLayout& layout = task.cache.layout;
  SPECDEC_CHECK(task.n_rows >= 1 && task.first_slot >= 0 && task.n_heads >= 0 &&
                task.n_kv_heads >= 1);
  SPECDEC_CHECK(task.head_dim >= 1 && task.head_dim <= kMaxHeadDim);
  SPECDEC_CHECK(task.n_rot >= 0 && task.n_rot % 2 == 0 && task.n_rot <= task.head_dim);
  SPECDEC_CHECK(layout.head_dim == task.head_dim && layout.n_kv_heads == task.n_kv_heads);
  SPECDEC_CHECK(layout.type != KvType::kQ8_0 || task.head_dim % 32 == 0);
}

}  // namespace specdec
