// Attention over the paged cache. Included inside a target region after math-inl.h, with
// SPECDEC_ATTENTION_GROUP (queries that share a key vector in registers) defined.
//
// Order of operations, the same for every tile, thread and instruction set (contract 1):
//   score   = chain of fma over the dimensions, one lane per position; q carries scale * log2(e),
//   or
//             scale / soft_cap: then the score is soft_cap * log2(e) * tanh of that
//   chunk   : m = max of its scores, p = 2^(score - m), l = sum of p in 16 lanes by position,
//             o = chain of fma over the positions, one lane per dimension
//   row     : chunks merged in ascending order, see merge_chunk
#pragma once

#include "backend/cpu/attention_tile-inl.h"

namespace specdec::SPECDEC_KERNELS {
namespace {

// (m, l, o) += (chunk_m, chunk_l, chunk_o)
inline void merge_chunk(float& m, float& l, float* o, float chunk_m, float chunk_l,
                        const float* chunk_o, int v_stride) {
  const float top = m < chunk_m ? chunk_m : m;
  float factors[16] = {m - top, chunk_m - top};
  exp2_nonpositive(F32x16::load(factors)).store(factors);
  m = top;
  l = l * factors[0] + chunk_l * factors[1];
  const F32x16 old_factor = F32x16::set1(factors[0]);
  const F32x16 new_factor = F32x16::set1(factors[1]);
  for (int d = 0; d < v_stride; d += 16) {
    fma(F32x16::load(o + d), old_factor, F32x16::load(chunk_o + d) * new_factor).store(o + d);
  }
}

// (m, l) to what o is multiplied with; a sink is merged behind the last chunk.
inline float share_of_sum(const AttentionTask& task, std::int64_t head, float m, float l) {
  if (task.sinks == nullptr) return 1.0F / l;
  const float sink = task.sinks[head] * 0x1.715476p+0F;
  const float top = m < sink ? sink : m;
  float factors[16] = {m - top, sink - top};
  exp2_nonpositive(F32x16::load(factors)).store(factors);
  return factors[0] / (l * factors[0] + factors[1]);
}

inline void write_row(const AttentionTask& task, int kv_head, int group, int t, const float* o,
                      float m, float l) {
  const std::int64_t head = static_cast<std::int64_t>(kv_head) * group + t % group;
  float* out = task.out + t / group * task.out_stride + head * task.head_dim;
  const F32x16 factor = F32x16::set1(share_of_sum(task, head, m, l));
  for (int d = 0; d < task.head_dim; d += 16) {
    const F32x16 x = F32x16::load(o + d) * factor;
    if (d + 16 <= task.head_dim) {
      x.store(out + d);
    } else {
      store_partial(x, out + d, task.head_dim - d);
    }
  }
}

// One tile from its first to its last chunk.
inline void attend_tile(const AttentionTask& task, const AttentionPlan& plan,
                        AttentionWorkspace& work, AttentionTile& tile, int kv_head) {
  const int v_stride = task.cache.layout.v_stride();
  const std::size_t out_bytes = static_cast<std::size_t>(v_stride) * sizeof(float);
  const int n_chunks = tile.max_chunks();
  for (int chunk = tile.min_chunk(); chunk < n_chunks; ++chunk) {
    tile.run_chunk(chunk, work.chunk_out, v_stride);
    for (int j = 0; j < tile.n(); ++j) {
      if (!tile.sees(j, chunk)) continue;
      const float* chunk_out = work.chunk_out + j * v_stride;
      float* out = work.sum_out + j * v_stride;
      if (chunk == tile.first_chunk(j)) {
        work.max[j] = work.chunk_max[j];
        work.sum[j] = work.chunk_sum[j];
        std::memcpy(out, chunk_out, out_bytes);
      } else {
        merge_chunk(work.max[j], work.sum[j], out, work.chunk_max[j], work.chunk_sum[j], chunk_out,
                    v_stride);
      }
    }
  }
  for (int j = 0; j < tile.n(); ++j) {
    write_row(task, kv_head, plan.group, tile.begin() + j, work.sum_out + j * v_stride, work.max[j],
              work.sum[j]);
  }
}

// Every (tile, chunk) by itself, then the merge.
inline void attend_split(const AttentionTask& task, const AttentionPlan& plan,
                         AttentionWorkspace& work, AttentionTile& tile, float* partial,
                         TaskContext& context) {
  const int v_stride = task.cache.layout.v_stride();
  const std::int64_t row_stride =
      static_cast<std::int64_t>(plan.n_used()) * v_stride;  // of one query
  const std::int64_t n_queries = static_cast<std::int64_t>(task.n_kv_heads) * plan.n_queries;
  float* maxima = partial + n_queries * row_stride;  // [n_queries, n_used]
  float* sums = maxima + n_queries * plan.n_used();
  const std::int64_t n_tiles = static_cast<std::int64_t>(task.n_kv_heads) * plan.n_tiles;
  for (std::int64_t unit = context.next_chunk(); unit < n_tiles * plan.n_used();
       unit = context.next_chunk()) {
    const int kv_head = static_cast<int>(unit % task.n_kv_heads);
    const int index = static_cast<int>(unit / task.n_kv_heads % plan.n_tiles);
    const int used = static_cast<int>(unit / n_tiles);
    const int chunk = plan.first_chunk + used;
    tile.select(kv_head, index);
    bool seen = false;  // a page that nobody sees may be gone
    for (int j = 0; j < tile.n(); ++j) seen = seen || tile.sees(j, chunk);
    if (!seen) continue;
    const std::int64_t first = static_cast<std::int64_t>(kv_head) * plan.n_queries + tile.begin();
    tile.run_chunk(chunk, partial + first * row_stride + static_cast<std::int64_t>(used) * v_stride,
                   row_stride);
    for (int j = 0; j < tile.n(); ++j) {
      if (!tile.sees(j, chunk)) continue;
      maxima[(first + j) * plan.n_used() + used] = work.chunk_max[j];
      sums[(first + j) * plan.n_used() + used] = work.chunk_sum[j];
    }
  }
  context.barrier();
  const std::int64_t begin = n_queries * context.thread() / context.n_threads();
  const std::int64_t end = n_queries * (context.thread() + 1) / context.n_threads();
  for (std::int64_t i = begin; i < end; ++i) {
    const int t = static_cast<int>(i % plan.n_queries);
    const int length = task.first_slot + work.depth[t / plan.group] + 1;
    const int first = plan.first_seen(length) / kKvChunk - plan.first_chunk;
    float* all = partial + i * row_stride;
    float* out = all + static_cast<std::int64_t>(first) * v_stride;
    const float* row_max = maxima + i * plan.n_used();
    const float* row_sum = sums + i * plan.n_used();
    float m = row_max[first];
    float l = row_sum[first];
    const int n_used = (length + kKvChunk - 1) / kKvChunk - plan.first_chunk;
    for (int used = first + 1; used < n_used; ++used) {
      merge_chunk(m, l, out, row_max[used], row_sum[used],
                  all + static_cast<std::int64_t>(used) * v_stride, v_stride);
    }
    write_row(task, static_cast<int>(i / plan.n_queries), plan.group, t, out, m, l);
  }
}

void attention(const AttentionTask& task, std::byte* scratch, TaskContext& context) noexcept {
  const AttentionPlan plan(task, context.n_wanted());
  AttentionWorkspace work(task, plan,
                          scratch + plan.thread_bytes * static_cast<std::size_t>(context.thread()));
  AttentionTile tile(task, plan, work);
  if (plan.split_chunks) {
    auto* partial = reinterpret_cast<float*>(
        scratch + plan.thread_bytes * static_cast<std::size_t>(context.n_wanted()));
    attend_split(task, plan, work, tile, partial, context);
    return;
  }
  const std::int64_t n_units = static_cast<std::int64_t>(task.n_kv_heads) * plan.n_tiles;
  for (std::int64_t unit = context.next_chunk(); unit < n_units; unit = context.next_chunk()) {
    const int kv_head = static_cast<int>(unit % task.n_kv_heads);
    tile.select(kv_head,
                plan.n_tiles - 1 - static_cast<int>(unit / task.n_kv_heads));  // longest first
    attend_tile(task, plan, work, tile, kv_head);
  }
}

}  // namespace
}  // namespace specdec::SPECDEC_KERNELS
