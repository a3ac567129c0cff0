#pragma once

#include "backend/cuda/kernels/attention-inl.h"
#include "backend/cuda/kernels/dispatch-inl.h"

namespace specdec::cuda {

template <class L, int kType, bool kSplit, int kHeadDim, int kQueries, bool kWindow = false>
void run_attention(const AttentionParams& p, int n_kv_heads, Stream stream) {
  using Body = Attention<kType, kSplit, kHeadDim, kQueries, kWindow>;
  const auto groups = static_cast<int>(div_up(p.n_queries, kQueries));
  L::template launch<Body>(p, groups * (kSplit ? p.n_chunks : 1), n_kv_heads, Body::kThreads,
                           Body::shared_bytes(p.cache.head_dim), stream);
}

template <class L, int kType, bool kSplit>
void run_attention_dims(const AttentionParams& p, int n_kv_heads, Stream stream) {
  if (p.window > 0 || p.soft_cap > 0)
    return run_attention<L, kType, kSplit, 0, 4, true>(p, n_kv_heads, stream);
  const auto n_blocks = [&](int n_queries) {
    return div_up(p.n_queries, n_queries) * n_kv_heads * (kSplit ? p.n_chunks : 1);
  };
  const bool few = n_blocks(8) < 2 * L::n_processors();
  const bool very_few = n_blocks(2) <= L::n_processors();
  const auto run = [&]<int kHeadDim>() {
    if (very_few) return run_attention<L, kType, kSplit, kHeadDim, 2>(p, n_kv_heads, stream);
    if (few) return run_attention<L, kType, kSplit, kHeadDim, 4>(p, n_kv_heads, stream);
    run_attention<L, kType, kSplit, kHeadDim, 8>(p, n_kv_heads, stream);
  };
  if (p.cache.head_dim == 64) return run.template operator()<64>();
  if (p.cache.head_dim == 128) return run.template operator()<128>();
  run_attention<L, kType, kSplit, 0, 4>(p, n_kv_heads, stream);
}

template <class L, bool kSplit>
void run_attention_type(const AttentionParams& p, int n_kv_heads, Stream stream) {
  if (p.cache.type == kCacheF32)
    return run_attention_dims<L, kCacheF32, kSplit>(p, n_kv_heads, stream);
  if (p.cache.type == kCacheF16)
    return run_attention_dims<L, kCacheF16, kSplit>(p, n_kv_heads, stream);
  run_attention_dims<L, kCacheQ8, kSplit>(p, n_kv_heads, stream);
}

template <class L>
void attention(const AttentionArgs& args, Stream stream) {
  if (args.n_rows == 0) return;
  AttentionParams p{};
  p.n_rows = args.n_rows;
  p.group = args.n_heads / args.n_kv_heads;
  p.n_queries = p.n_rows * p.group;
  p.n_chunks = args.max_chunks;
  const float log2_e = 0x1.715476p+0F;
  p.factor = args.soft_cap > 0 ? args.scale / args.soft_cap : args.scale * log2_e;
  p.soft_cap = args.soft_cap * log2_e;
  p.q = args.q;
  p.out = args.out;
  p.q_stride = args.q_stride;
  p.out_stride = args.out_stride;
  p.first_slot = args.first_slot;
  p.slot_offset = args.slot_offset;
  p.parents = args.parents;
  p.window = args.window;
  p.cache = cache_params(args.layout, args.pages, args.page_offset);
  p.n_new = args.rope.n_rows;
  p.n_before = args.n_before;
  p.rows = new_rows(args.rope);
  if (!splits_chunks(args.n_rows, args.max_chunks))
    return run_attention_type<L, false>(p, args.n_kv_heads, stream);
  const std::size_t n = static_cast<std::size_t>(p.n_rows) *
                        static_cast<std::size_t>(args.n_heads) *
                        static_cast<std::size_t>(p.n_chunks);
  p.partial_max = reinterpret_cast<float*>(args.scratch);
  p.partial_sum = reinterpret_cast<float*>(args.scratch + aligned(n * sizeof(float)));
  p.partial_out = reinterpret_cast<float*>(args.scratch + 2 * aligned(n * sizeof(float)));
  p.counters = args.counters;
  run_attention_type<L, true>(p, args.n_kv_heads, stream);
}

}  // namespace specdec::cuda
