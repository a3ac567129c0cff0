// A chunk of attention for some queries at once. Included inside a target region after math-inl.h.
#pragma once

#include "backend/cpu/attention_kernels-inl.h"

namespace specdec::SPECDEC_KERNELS {
namespace {

// A tile: queries [begin, begin + n) of one kv head against that head's keys and values.
class AttentionTile {
 public:
  AttentionTile(const AttentionTask& task, const AttentionPlan& plan, AttentionWorkspace& work)
      : task_(task), plan_(plan), work_(work), layout_(task.cache.layout) {
    find_depths();
  }

  void select(int kv_head, int tile) {
    kv_head_ = kv_head;
    begin_ = tile * plan_.tile_rows;
    n_ = plan_.n_queries - begin_ < plan_.tile_rows ? plan_.n_queries - begin_ : plan_.tile_rows;
    const int linear = n_linear_rows_ * plan_.group - begin_;
    n_linear_ = linear < 0 ? 0 : linear < n_ ? linear : n_;
    pack_queries();
  }

  [[nodiscard]] int n() const { return n_; }
  [[nodiscard]] int begin() const { return begin_; }
  [[nodiscard]] int row(int j) const { return (begin_ + j) / plan_.group; }
  // Logical positions that query j sees.
  [[nodiscard]] int length(int j) const { return task_.first_slot + work_.depth[row(j)] + 1; }
  [[nodiscard]] int n_chunks(int j) const { return (length(j) + kKvChunk - 1) / kKvChunk; }
  [[nodiscard]] int first_chunk(int j) const { return plan_.first_seen(length(j)) / kKvChunk; }
  [[nodiscard]] bool sees(int j, int chunk) const {
    return first_chunk(j) <= chunk && chunk < n_chunks(j);
  }
  [[nodiscard]] int min_chunk() const {
    if (task_.window == 0) return 0;
    int out = first_chunk(0);
    for (int j = 1; j < n_; ++j) out = first_chunk(j) < out ? first_chunk(j) : out;
    return out;
  }
  [[nodiscard]] int max_chunks() const {
    int out = 0;
    for (int j = 0; j < n_; ++j) out = n_chunks(j) > out ? n_chunks(j) : out;
    return out;
  }

  // Output of query j, which starts at out[j * out_stride]; work.chunk_max and chunk_sum as well.
  // Queries that see nothing of the chunk are left alone.
  void run_chunk(int chunk, float* out, std::int64_t out_stride) {
    chunk_ = chunk;
    out_ = out;
    out_stride_ = out_stride;
    const std::size_t head = static_cast<std::size_t>(kv_head_) * layout_.head_bytes();
    page_ = task_.cache.pages[chunk] + head;
    next_page_ = chunk + 1 < plan_.n_chunks ? task_.cache.pages[chunk + 1] + head : nullptr;
    n_used_ = n_used(chunk);
    n_used_next_ = next_page_ == nullptr ? 0 : n_used(chunk + 1);
    const int committed = task_.first_slot - chunk * kKvChunk;
    n_committed_ = committed < 0 ? 0 : committed < kKvChunk ? committed : kKvChunk;
    find_hidden();
    score_chunk();
    for (int j = 0; j < n_; ++j) {
      const int n = n_visible(j);
      const int hidden = n_hidden(j);
      if (n <= hidden) continue;
      float* scores = work_.scores + j * kScoreStride;
      if (task_.soft_cap > 0) cap_scores(scores, hidden, n, task_.soft_cap);
      softmax_row(scores, hidden, n, work_.chunk_max + j, work_.chunk_sum + j);
      std::memset(out + j * out_stride, 0,
                  static_cast<std::size_t>(layout_.v_stride()) * sizeof(float));
    }
    sum_chunk();
  }

 private:
  // Query j sees positions [n_hidden, n_visible) of the current chunk.
  [[nodiscard]] int n_visible(int j) const { return within_chunk(length(j)); }
  [[nodiscard]] int n_hidden(int j) const { return within_chunk(plan_.first_seen(length(j))); }
  [[nodiscard]] int within_chunk(int position) const {
    const int n = position - chunk_ * kKvChunk;
    return n < 0 ? 0 : n < kKvChunk ? n : kKvChunk;
  }
  void find_hidden() {
    min_hidden_ = max_hidden_ = task_.window == 0 ? 0 : n_hidden(0);
    for (int j = 1; task_.window != 0 && j < n_; ++j) {
      const int n = n_hidden(j);
      min_hidden_ = n < min_hidden_ ? n : min_hidden_;
      max_hidden_ = n > max_hidden_ ? n : max_hidden_;
    }
  }
  // Slots of a chunk that hold anything.
  [[nodiscard]] int n_used(int chunk) const {
    const int n = task_.first_slot + task_.n_rows - chunk * kKvChunk;
    return n < kKvChunk ? n : kKvChunk;
  }
  // First query of the linear prefix that sees a position of this chunk.
  [[nodiscard]] int first_linear(int position) const {
    const int r = position + chunk_ * kKvChunk - task_.first_slot;
    const int j = r * plan_.group - begin_;
    return r <= 0 || j < 0 ? 0 : j < n_linear_ ? j : n_linear_;
  }
  [[nodiscard]] int n_visible_linear() const {
    return n_linear_ == 0 ? 0 : n_visible(n_linear_ - 1);
  }

  void find_depths() {
    n_linear_rows_ = task_.n_rows;
    for (int r = 0; r < task_.n_rows; ++r) {
      const int parent = task_.parents == nullptr ? r - 1 : task_.parents[r];
      work_.depth[r] = parent < 0 ? 0 : work_.depth[parent] + 1;
      if (parent != r - 1 && n_linear_rows_ == task_.n_rows) n_linear_rows_ = r;
    }
  }

  void find_path(int r) {
    for (int at = r; at >= 0; at = task_.parents[at]) work_.path[work_.depth[at]] = at;
  }
  [[nodiscard]] int slot_of(int position) const {  // of the current path; position within the chunk
    const int logical = chunk_ * kKvChunk + position;
    return logical < task_.first_slot ? logical
                                      : task_.first_slot + work_.path[logical - task_.first_slot];
  }

  // [register group][head_dim][kGroup]
  void pack_queries() {
    const int n_groups = (n_ + kGroup - 1) / kGroup;
    group_rows_ = (n_ + n_groups - 1) / n_groups;
    const float factor =
        task_.soft_cap > 0 ? task_.scale / task_.soft_cap : task_.scale * 0x1.715476p+0F;
    for (int j = 0; j < n_; ++j) {
      const int t = begin_ + j;
      const std::int64_t head = static_cast<std::int64_t>(kv_head_) * plan_.group + t % plan_.group;
      const float* src = task_.q + t / plan_.group * task_.q_stride + head * task_.head_dim;
      float* dst = work_.q + static_cast<std::int64_t>(j / group_rows_) * task_.head_dim * kGroup +
                   j % group_rows_;
      for (int d = 0; d < task_.head_dim; ++d) dst[d * kGroup] = src[d] * factor;
    }
  }

  // Scores of queries [begin, end) for n_blocks <= 2 key blocks, written at `position`.
  template <class E>
  void score(int begin, int end, const E* k, int n_blocks, int position) {
    for (int j = begin; j < end;) {
      const int group = j / group_rows_;
      const int stop = (group + 1) * group_rows_ < end ? (group + 1) * group_rows_ : end;
      const float* q =
          work_.q + static_cast<std::int64_t>(group) * task_.head_dim * kGroup + j % group_rows_;
      run_score(stop - j, n_blocks, q, k, task_.head_dim,
                work_.scores + j * kScoreStride + position);
      fetch_ahead();
      j = stop;
    }
  }

  template <class E>
  void weigh(int begin, int end, const E* v, int n, int position) {
    if (end <= begin || n <= 0) return;
    const int n_groups = (end - begin + kGroup - 1) / kGroup;
    const int rows = (end - begin + n_groups - 1) / n_groups;
    for (int j = begin; j < end; j += rows) {
      run_weigh(end - j < rows ? end - j : rows, work_.scores + j * kScoreStride + position, v,
                layout_.v_stride(), n, out_ + j * out_stride_, out_stride_);
      fetch_ahead();
    }
  }

  // A step's memory is fetched during the step before it, a slice after each register group.
  // n: positions of the next step.
  void look_ahead(const std::byte* next, int n, int position_bytes) {
    const int n_lines = (n < kKvStep ? n : kKvStep) * position_bytes / 64;
    const int n_groups = (n_ + group_rows_ - 1) / group_rows_;
    ahead_ = next;
    ahead_end_ = n_lines <= 0 ? next : next + n_lines * 64;
    ahead_slice_ = (n_lines + n_groups - 1) / n_groups * 64;
  }
  void fetch_ahead() {
    const std::byte* end = ahead_end_ - ahead_ < ahead_slice_ ? ahead_end_ : ahead_ + ahead_slice_;
    for (; ahead_ < end; ahead_ += 64) __builtin_prefetch(ahead_, 0, 3);
  }

  [[nodiscard]] bool few() const { return n_ <= kGroup; }  // conversion in the kernel is cheaper

  void score_chunk() {
    const int n_linear = n_visible_linear();
    const int element = static_cast<int>(kv_element_bytes(layout_.type));
    const int step_bytes = kKvStep * layout_.head_dim * element;
    const int n_keys = (n_used_ + kKvLane - 1) / kKvLane * kKvLane;  // whole blocks
    for (int p = min_hidden_ / kKvStep * kKvStep; p < kKvChunk; p += kKvStep) {
      const bool shared = p + kKvStep <= n_committed_;
      if (!shared && p >= n_linear) break;
      const int begin = shared ? 0 : first_linear(p);
      const int end = shared ? n_ : n_linear_;
      if (end <= begin) continue;
      const int left = (n_linear - p + kKvLane - 1) / kKvLane;
      const int n_blocks = shared || left > 2 ? 2 : left;
      const std::byte* k = page_ + layout_.k_offset() + p / kKvStep * step_bytes;
      const int next = p + kKvStep;
      if (next < n_keys) {
        look_ahead(k + step_bytes, n_keys - next, layout_.head_dim * element);
      } else {
        look_ahead(page_ + layout_.v_offset(), n_used_, layout_.v_stride() * element);
      }
      if (layout_.type == KvType::kF32) {
        score(begin, end, reinterpret_cast<const float*>(k), n_blocks, p);
      } else if (layout_.type == KvType::kF16 && few()) {
        score(begin, end, reinterpret_cast<const std::uint16_t*>(k), n_blocks, p);
      } else {
        const auto* scales =
            reinterpret_cast<const std::uint16_t*>(page_ + layout_.k_scales_offset()) +
            static_cast<std::int64_t>(p) * layout_.n_scales();
        convert_keys(layout_, k, scales, n_blocks, work_.k);
        score(begin, end, work_.k, n_blocks, p);
      }
    }
    for (int j = n_linear_; j < n_; j = next_row(j)) score_path(j, next_row(j));
  }

  // First query of the tile that belongs to a later row than j.
  [[nodiscard]] int next_row(int j) const {
    const int next = (row(j) + 1) * plan_.group - begin_;
    return next < n_ ? next : n_;
  }

  void score_path(int begin, int end) {
    const int n = n_visible(begin);
    const int hidden = n_hidden(begin);
    if (n <= hidden) return;
    find_path(row(begin));
    const std::size_t block_bytes = static_cast<std::size_t>(kKvLane) *
                                    static_cast<std::size_t>(layout_.head_dim) *
                                    kv_element_bytes(layout_.type);
    auto* scales = reinterpret_cast<std::uint16_t*>(work_.gathered + block_bytes);
    const int first_step = n_committed_ / kKvStep * kKvStep;
    const int first_lane = hidden / kKvLane * kKvLane;
    for (int p = first_step < first_lane ? first_lane : first_step; p < n; p += kKvLane) {
      gather_keys(p, n - p < kKvLane ? n - p : kKvLane, work_.gathered, scales, block_bytes);
      convert_keys(layout_, work_.gathered, scales, 1, work_.k);
      score(begin, end, work_.k, 1, p);
    }
  }

  // The key block at `position` of the current path: committed lanes in one copy, the others
  // singly.
  void gather_keys(int position, int n, std::byte* elements, std::uint16_t* scales,
                   std::size_t block_bytes) {
    const int block = position / kKvLane;
    const int n_scale_lanes = layout_.n_scales() * kKvLane;
    if (position < n_committed_) {
      std::memcpy(elements,
                  page_ + layout_.k_offset() + static_cast<std::size_t>(block) * block_bytes,
                  block_bytes);
      const auto* src = reinterpret_cast<const std::uint16_t*>(page_ + layout_.k_scales_offset());
      for (int i = 0; i < n_scale_lanes; ++i) scales[i] = src[block * n_scale_lanes + i];
    }
    for (int lane = 0; lane < n; ++lane) {
      if (position + lane < n_committed_) continue;
      const int slot = slot_of(position + lane);
      const std::byte* head = task_.cache.pages[slot / kKvChunk] +
                              static_cast<std::size_t>(kv_head_) * layout_.head_bytes();
      const int src_block = slot % kKvChunk / kKvLane;
      const std::byte* src =
          head + layout_.k_offset() + static_cast<std::size_t>(src_block) * block_bytes;
      const int src_lane = slot % kKvLane;
      if (layout_.type == KvType::kF32) {
        copy_lane<float>(src, src_lane, elements, lane, layout_.head_dim);
      } else if (layout_.type == KvType::kF16) {
        copy_lane<std::uint16_t>(src, src_lane, elements, lane, layout_.head_dim);
      } else {
        copy_lane<std::int8_t>(src, src_lane, elements, lane, layout_.head_dim);
        const auto* from = reinterpret_cast<const std::uint16_t*>(head + layout_.k_scales_offset());
        for (int g = 0; g < layout_.n_scales(); ++g) {
          scales[g * kKvLane + lane] = from[src_block * n_scale_lanes + g * kKvLane + src_lane];
        }
      }
    }
  }

  // Makes the values of positions [p, p + n) of the current page ready for weigh_step.
  void load_step(int p, int n) {
    if (layout_.type == KvType::kF32 || (layout_.type == KvType::kF16 && few())) return;
    convert_values(layout_, page_, p, n, work_.v);
  }

  // load_step has made them ready from `loaded` <= p on.
  void weigh_step(int begin, int end, int p, int n, int loaded) {
    const std::byte* v = page_ + layout_.v_offset() +
                         static_cast<std::size_t>(p) *
                             static_cast<std::size_t>(layout_.v_stride()) *
                             kv_element_bytes(layout_.type);
    if (layout_.type == KvType::kF32) {
      weigh(begin, end, reinterpret_cast<const float*>(v), n, p);
    } else if (layout_.type == KvType::kF16 && few()) {
      weigh(begin, end, reinterpret_cast<const std::uint16_t*>(v), n, p);
    } else {
      weigh(begin, end, work_.v + (p - loaded) * layout_.v_stride(), n, p);
    }
  }

  // Positions [p, end) of queries [first, last) as far as each sees them.
  void weigh_seen(int first, int last, int p, int end) {
    for (int j = first; j < last; j = next_row(j)) {
      const int hidden = n_hidden(j);
      const int visible = n_visible(j);
      const int from = hidden < p ? p : hidden;
      const int n = (visible < end ? visible : end) - from;
      if (n > 0) weigh_step(j, next_row(j), from, n, p);
    }
  }

  void sum_chunk() {
    const int element = static_cast<int>(kv_element_bytes(layout_.type));
    const int row_bytes = layout_.v_stride() * element;
    for (int p = min_hidden_ / kKvStep * kKvStep; p < n_committed_; p += kKvStep) {
      const int n = n_committed_ - p < kKvStep ? n_committed_ - p : kKvStep;
      if (p + kKvStep < kKvChunk) {
        look_ahead(page_ + layout_.v_offset() + (p + kKvStep) * row_bytes, n_used_ - p - kKvStep,
                   row_bytes);
      } else {
        look_ahead(next_page_, n_used_next_, layout_.head_dim * element);
      }
      load_step(p, n);
      if (p < max_hidden_) {
        weigh_seen(0, n_, p, p + n);
      } else {
        weigh_step(0, n_, p, n, p);
      }
    }
    const int n_linear = n_visible_linear();
    for (int p = n_committed_; p < n_linear; p += kKvStep) {
      sum_linear(p, n_linear - p < kKvStep ? n_linear : p + kKvStep);
    }
    for (int j = n_linear_; j < n_; j = next_row(j)) {
      const int n_path = n_visible(j);
      const int hidden = n_hidden(j);
      const int first = hidden < n_committed_ ? n_committed_ : hidden;
      if (n_path <= first) continue;
      find_path(row(j));
      for (int p = first; p < n_path; p += kKvStep) {
        const int n = n_path - p < kKvStep ? n_path - p : kKvStep;
        for (int i = 0; i < n; ++i) {
          const int slot = slot_of(p + i);
          const std::byte* head = task_.cache.pages[slot / kKvChunk] +
                                  static_cast<std::size_t>(kv_head_) * layout_.head_bytes();
          convert_values(layout_, head, slot % kKvChunk, 1, work_.v + i * layout_.v_stride());
        }
        weigh(j, next_row(j), work_.v, n, p);
      }
    }
  }

  // Positions [p, end) of the linear rows, of which each row may see only a part.
  void sum_linear(int p, int end) {
    const int begin_some = first_linear(p);
    const int begin_all = first_linear(end - 1);
    load_step(p, end - p);
    if (p < max_hidden_) return weigh_seen(begin_some, n_linear_, p, end);
    weigh_step(begin_all, n_linear_, p, end - p, p);
    for (int j = begin_some; j < begin_all; j = next_row(j)) {
      weigh_step(j, next_row(j), p, n_visible(j) - p, p);
    }
  }

  const AttentionTask& task_;
  const AttentionPlan& plan_;
  AttentionWorkspace& work_;
  const KvLayout& layout_;
  int n_linear_rows_ = 0;  // leading rows of the batch whose logical position is their slot
  int kv_head_ = 0, begin_ = 0, n_ = 0;
  int n_linear_ = 0;    // leading queries of the tile that belong to linear rows
  int group_rows_ = 1;  // queries per register group of this tile
  int chunk_ = 0, n_committed_ = 0;
  int min_hidden_ = 0, max_hidden_ = 0;  // over the queries; both 0 without a window
  int n_used_ = 0, n_used_next_ = 0;
  const std::byte* page_ = nullptr;       // this kv head's part of the chunk's page
  const std::byte* next_page_ = nullptr;  // and of the next one, if there is one
  const std::byte* ahead_ = nullptr;      // what fetch_ahead has left to do
  const std::byte* ahead_end_ = nullptr;
  std::int64_t ahead_slice_ = 0;
  float* out_ = nullptr;
  std::int64_t out_stride_ = 0;
};

}  // namespace
}  // namespace specdec::SPECDEC_KERNELS
