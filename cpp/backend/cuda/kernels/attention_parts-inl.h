// What attention is made of besides its loops: positions of trees, and chunks put together.
#pragma once

#include <type_traits>

#include "backend/cuda/kernels/rope_store-inl.h"

namespace specdec::cuda {

// Dimensions whose keys, and positions whose values, are loaded before they are used: few queries
// leave registers for more.
template <int kQueries>
inline constexpr int kKeyBatch = kQueries == 2 ? 32 : 16;
template <int kType, int kQueries>
inline constexpr int kValueBatch = (kType == kCacheF16 ? 32 : 16) * (kQueries == 2 ? 2 : 1);
inline constexpr int kMergeBatch = 8;  // chunks that are loaded before they are merged

struct AttentionParams {
  int n_rows;
  int group;      // query heads per kv head
  int n_queries;  // n_rows * group, query t is row t / group
  int n_chunks;   // most that a row may see
  float factor;   // scale * log2(e), or scale / soft_cap
  const float* q;
  float* out;
  std::int64_t q_stride, out_stride;
  const std::int32_t* first_slot;
  int slot_offset;
  const std::int32_t* parents;
  int window;      // 0: none
  float soft_cap;  // times log2(e); 0: none
  CacheParams cache;
  int n_new;     // rows to be rotated and stored
  int n_before;  // of which are not attended
  NewRows rows;
  std::int32_t* counters;  // [n_kv_heads][groups of queries], of blocks that have ended
  // Partial results of split attention, [n_kv_heads * n_queries][n_chunks] and outputs [..
  // ][head_dim]
  float* partial_max;
  float* partial_sum;
  float* partial_out;
};

// Ancestors of a row within the batch.
template <class G>
SPECDEC_GPU int depth_of(G& g, const std::int32_t* parents, int row) {
  if (parents == nullptr) return row;
  int depth = 0;
  for (int at = g.load(parents + row); at >= 0; at = g.load(parents + at)) ++depth;
  return depth;
}

// Slot of a logical position of a row: its ancestor at depth position - first.
template <class G>
SPECDEC_GPU int slot_of(G& g, const std::int32_t* parents, int first, int row, int length,
                        int logical) {
  if (parents == nullptr || logical < first) return logical;
  int at = row;
  for (int up = length - 1 - logical; up > 0; --up) at = g.load(parents + at);
  return first + at;
}

// The first logical position that a row of this length sees.
template <bool kWindow>
SPECDEC_GPU int first_seen(const AttentionParams& p, int length) {
  if constexpr (!kWindow) return 0;
  return p.window == 0 || length <= p.window ? 0 : length - p.window;
}

// A row of this length sees positions [n_hidden, n_visible) of a chunk.
SPECDEC_GPU int n_visible(int length, int chunk) {
  return larger(0, smaller(kChunk, length - chunk * kChunk));
}
template <bool kWindow>
SPECDEC_GPU int n_hidden(const AttentionParams& p, int length, int chunk) {
  if constexpr (!kWindow) return 0;
  return n_visible(first_seen<kWindow>(p, length), chunk);
}
template <bool kWindow>
SPECDEC_GPU bool sees(const AttentionParams& p, int length, int chunk) {
  return n_visible(length, chunk) > n_hidden<kWindow>(p, length, chunk);
}

// What earlier passes left of a chunk: other kernels between then and now had the caches.
template <int kType, int kThreads, class G>
SPECDEC_GPU void prefetch_chunk(G& g, const AttentionParams& p, int kv_head, int first, int chunk) {
  const int n_old = smaller(kChunk, first - chunk * kChunk);
  if (n_old <= 0) return;
  const CacheParams& c = p.cache;
  const std::byte* part = g.load_fresh(c.pages + chunk) + c.page_offset + kv_head * c.head_bytes;
  const int key_bytes = (n_old + 15) / 16 * 16 * c.head_dim * kElementBytes<kType>;
  const int value_bytes = n_old * c.v_stride * kElementBytes<kType>;
  for (int at = g.thread() * 128; at < key_bytes; at += kThreads * 128) g.prefetch(part + at);
  for (int at = g.thread() * 128; at < value_bytes; at += kThreads * 128)
    g.prefetch(part + c.v_offset + at);
}

// By all threads of a block.
template <int kThreads, class G>
SPECDEC_GPU void store_rows(G& g, const AttentionParams& p, int kv_head, int first) {
  const int of_key = (p.cache.head_dim + 31) / 32;  // pieces of 32
  const int of_row = of_key + (p.cache.v_stride + 31) / 32;
  for (int at = g.thread() / 32; at < p.n_new * of_row; at += kThreads / 32) {
    const int r = at / of_row;
    const int piece = at % of_row;
    const bool is_key = piece < of_key;
    store_new(g, p.rows, p.cache, kv_head, r, first - p.n_before + r, is_key,
              32 * (is_key ? piece : piece - of_key));
  }
}

// (m, l) and what old and new outputs are multiplied with.
struct Merge {
  float m, l, old_factor, new_factor;
};
SPECDEC_GPU Merge merge_of(float m, float l, float chunk_m, float chunk_l) {
  const float top = m < chunk_m ? chunk_m : m;
  Merge out;
  out.old_factor = exp2_nonpositive(m - top);
  out.new_factor = exp2_nonpositive(chunk_m - top);
  out.m = top;
  out.l = l * out.old_factor + chunk_l * out.new_factor;
  return out;
}

// Dimension d of a query over all of its chunks.
template <bool kWindow, class G>
SPECDEC_GPU float merged_output(G& g, const AttentionParams& p, std::int64_t base, int length,
                                int d) {
  float m = 0;
  float l = 0;
  float o = 0;
  const int first = first_seen<kWindow>(p, length) / kChunk;
  for (int chunk = first; chunk * kChunk < length; chunk += kMergeBatch) {
    float part_m[kMergeBatch], part_l[kMergeBatch], part_o[kMergeBatch];
    SPECDEC_UNROLL
    for (int i = 0; i < kMergeBatch; ++i) {
      const bool seen = (chunk + i) * kChunk < length;
      const std::int64_t at = base + chunk + i;
      part_m[i] = seen ? g.load_fresh(p.partial_max + at) : 0.0F;
      part_l[i] = seen ? g.load_fresh(p.partial_sum + at) : 0.0F;
      part_o[i] = seen ? g.load_fresh(p.partial_out + at * p.cache.head_dim + d) : 0.0F;
    }
    SPECDEC_UNROLL
    for (int i = 0; i < kMergeBatch; ++i) {
      if ((chunk + i) * kChunk >= length) break;
      if (chunk + i == first) {
        m = part_m[0];
        l = part_l[0];
        o = part_o[0];
        continue;
      }
      const Merge next = merge_of(m, l, part_m[i], part_l[i]);
      m = next.m;
      l = next.l;
      o = fma_of(o, next.old_factor, part_o[i] * next.new_factor);
    }
  }
  return o * divide(1.0F, l);
}

}  // namespace specdec::cuda
