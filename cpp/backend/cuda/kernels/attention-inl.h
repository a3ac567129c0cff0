// Attention over the paged cache, in the order of operations of backend/cpu/attention-inl.h. A
// block takes 2, 4 or 8 queries (row, head) of one kv head. Split: one chunk of positions per
// block, the last of which merges them; else the block walks all chunks and merges as it goes, to
// the same bits. New rows are stored by every block that reads them: none can wait for another.
//   scores   one thread per position: a chain of multiply-adds over the dimensions
//   softmax  half a warp per query
//   values   one thread per dimension and group of queries: a chain over the positions
#pragma once

#include "backend/cuda/kernels/attention_parts-inl.h"

namespace specdec::cuda {

// kHeadDim: 64 or 128, or 0 for any. A block's queries are shared by kSubs groups of threads, each
// of which has kDims threads for the dimensions.
template <int kType, bool kSplit, int kHeadDim, int kQueries, bool kWindow>
struct Attention {
  using Params = AttentionParams;
  static constexpr bool kWaits = true;
  static constexpr int kMaxThreads = 256;
  static constexpr int kMinBlocks = 2;
  static constexpr int kThreads = 256;
  static constexpr int kDims = kHeadDim == 0 ? kThreads : kHeadDim;
  static constexpr int kSubs = kThreads / kDims < kQueries ? kThreads / kDims : kQueries;
  static constexpr int kKeys = kKeyBatch<kQueries>;
  static constexpr int kOwn = kQueries / kSubs;  // queries of one thread

  [[nodiscard]] static constexpr int shared_bytes(int head_dim) {
    return 256 + kQueries * kChunk * 4 + (kSplit ? 1 : 2) * kQueries * head_dim * 4;
  }

  // grid: split (chunks * query groups) x kv heads, else query groups x kv heads
  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& params) {
    Params p = params;
    if constexpr (kHeadDim != 0) p.cache.head_dim = p.cache.v_stride = kHeadDim;
    if constexpr (kHeadDim != 0) p.cache.n_scales = kHeadDim / 32;
    Attention tile;
    tile.kv_head = g.block_y();
    tile.begin = (kSplit ? g.block() / p.n_chunks : g.block()) * kQueries;
    tile.n = smaller(kQueries, p.n_queries - tile.begin);
    tile.first = g.load_fresh(p.first_slot) + p.slot_offset;
    const int own_chunk = kSplit ? g.block() % p.n_chunks : 0;
    if (tile.begin == 0) prefetch_chunk<kType, kThreads>(g, p, tile.kv_head, tile.first, own_chunk);
    g.wait_for_previous();
    if (!kSplit || tile.may_see_new(p, own_chunk))
      store_rows<kThreads>(g, p, tile.kv_head, tile.first);
    tile.load_queries(g, p);
    const auto lengths = tile.lengths(g, p);
    if constexpr (kSplit) {
      tile.run_chunk(g, p, own_chunk);
      tile.merge_chunks(g, p);
    } else {
      int longest = 0;
      for (int j = 0; j < tile.n; ++j) longest = larger(longest, lengths.get(j));
      int chunk = 0;
      if constexpr (kWindow) {
        int seen = longest;
        for (int j = 0; j < tile.n; ++j)
          seen = smaller(seen, first_seen<kWindow>(p, lengths.get(j)));
        chunk = seen / kChunk;
      }
      for (; chunk * kChunk < longest; ++chunk) tile.run_chunk(g, p, chunk);
      g.sync();
      tile.write_rows(g, p);
    }
  }

 private:
  int kv_head, begin, n, first;

  // Shared memory: lengths [8], chunk maxima, sums, running m, l, factors [8] each, scores
  // [kQueries][256], queries [head_dim][kQueries], running outputs [kQueries][head_dim].
  template <class G>
  static SPECDEC_GPU auto lengths(G& g, const Params&) {
    return g.template shared<int>(0);
  }
  template <class G>
  static SPECDEC_GPU auto stats(G& g) {
    return g.template shared<float>(32);  // [6][8]: chunk m, chunk l, m, l, old, new factor
  }
  template <class T, class G>
  static SPECDEC_GPU auto scores(G& g) {
    return g.template shared<T>(256);
  }
  template <class T, class G>
  static SPECDEC_GPU auto queries(G& g) {
    return g.template shared<T>(256 + kQueries * kChunk * 4);
  }
  template <class G>
  static SPECDEC_GPU auto sums(G& g, const Params& p) {
    return g.template shared<float>(256 + kQueries * (kChunk + p.cache.head_dim) * 4);
  }

  SPECDEC_GPU int row(const Params& p, int j) const { return (begin + j) / p.group; }
  SPECDEC_GPU int head(const Params& p, int j) const {
    return kv_head * p.group + (begin + j) % p.group;
  }
  // Whether new rows may be in a chunk; of trees they are in fewer positions than rows.
  SPECDEC_GPU bool may_see_new(const Params& p, int chunk) const {
    return (chunk + 1) * kChunk > first - p.n_before && chunk * kChunk < first + p.n_rows;
  }

  template <class G>
  SPECDEC_GPU void load_queries(G& g, const Params& p) const {
    constexpr int kWarps = kThreads / 32 / kQueries;  // per query
    const int dim = p.cache.head_dim;
    const auto q = queries<float>(g);
    const int j = g.thread() / 32 / kWarps;
    const float* src = nullptr;
    if (j < n) src = p.q + row(p, j) * p.q_stride + std::int64_t{head(p, j)} * dim;
    for (int d = g.thread() % (32 * kWarps); d < dim; d += 32 * kWarps) {
      float value = 0;
      if (src != nullptr) {
        value = p.n_new == 0 ? g.load(src + d) : rotated(g, p.rows, p.n_before + row(p, j), src, d);
      }
      q.set(d * kQueries + j, value * p.factor);
    }
    const auto length = lengths(g, p);
    if (g.thread() < n)
      length.set(g.thread(), first + depth_of(g, p.parents, row(p, g.thread())) + 1);
    g.sync();
  }

  template <class G>
  SPECDEC_GPU void run_chunk(G& g, const Params& p, int chunk) const {
    const auto length = lengths(g, p);
    int visible[kQueries], hidden[kQueries];
    int most = 0;
    SPECDEC_UNROLL
    for (int j = 0; j < kQueries; ++j) {
      const bool any = j < n && sees<kWindow>(p, length.get(j), chunk);
      visible[j] = any ? n_visible(length.get(j), chunk) : 0;
      hidden[j] = any ? n_hidden<kWindow>(p, length.get(j), chunk) : 0;
      most = larger(most, visible[j]);
    }
    if (most == 0) return;  // the same for all threads
    score(g, p, chunk, visible, hidden, most);
    g.sync();
    softmax(g, p, chunk, length);
    g.sync();
    weigh(g, p, chunk, most);
    if (!kSplit) g.sync();
  }

  // A position's slot is the same for all queries unless it is a tree's.
  SPECDEC_GPU bool is_shared(const Params& p, int logical) const {
    return p.parents == nullptr || logical < first;
  }

  // Element d of all queries times a key.
  template <class G>
  static SPECDEC_GPU void add_key(G& g, int d, float key, float* acc) {
    constexpr int kWidth = kQueries == 2 ? 2 : 4;
    const auto q = queries<std::conditional_t<kWidth == 2, Float2, Float4>>(g);
    SPECDEC_UNROLL
    for (int i = 0; i < kQueries; i += kWidth) {
      const auto some = q.get(d * (kQueries / kWidth) + i / kWidth);
      SPECDEC_UNROLL
      for (int j = 0; j < kWidth; ++j) acc[i + j] = fma_of(some.v[j], key, acc[i + j]);
    }
  }

  template <class G>
  SPECDEC_GPU void score(G& g, const Params& p, int chunk, const int* visible, const int* hidden,
                         int most) const {
    const int position = g.thread();
    const int dim = p.cache.head_dim;
    const int logical = chunk * kChunk + position;
    const auto out = scores<float>(g);
    float acc[kQueries] = {};
    if (position < most && is_shared(p, logical)) {
      const std::byte* part = head_part(g, p.cache, kv_head, logical);
      int d = 0;
      for (; d + kKeys <= dim; d += kKeys) {
        float key[kKeys];
        load_keys<kType, kKeys>(g, p.cache, part, position, d, key);
        SPECDEC_UNROLL
        for (int i = 0; i < kKeys; ++i) add_key(g, d + i, key[i], acc);
      }
      if constexpr (kHeadDim % kKeys != 0 || kHeadDim == 0) {
        for (; d < dim; ++d) add_key(g, d, load_key<kType>(g, p.cache, part, position, d), acc);
      }
    } else if (position < most) {
      const auto length = lengths(g, p);
      const auto q = queries<float>(g);
      SPECDEC_UNROLL
      for (int j = 0; j < kQueries; ++j) {
        if (position >= visible[j] || position < hidden[j]) continue;
        const int slot = slot_of(g, p.parents, first, row(p, j), length.get(j), logical);
        const std::byte* part = head_part(g, p.cache, kv_head, slot);
        for (int d = 0; d < dim; ++d) {
          acc[j] = fma_of(q.get(d * kQueries + j),
                          load_key<kType>(g, p.cache, part, slot % kChunk, d), acc[j]);
        }
      }
    }
    SPECDEC_UNROLL
    for (int j = 0; j < kQueries; ++j) {
      if (kWindow && p.soft_cap > 0) acc[j] = tanh_of(acc[j]) * p.soft_cap;
      const bool seen = position < visible[j] && position >= hidden[j];
      out.set(j * kChunk + position, seen ? acc[j] : -infinity());
    }
  }

  // Scores to 2^(score - max); 16 chains of sums by position and a fixed tree.
  template <class G, class Lengths>
  SPECDEC_GPU void softmax(G& g, const Params& p, int chunk, const Lengths& length) const {
    const int j = g.thread() / 32;
    if (j >= kQueries) return;
    const int lane = g.thread() % 16;
    const auto score = scores<float>(g);
    const auto stat = stats(g);
    float m = -infinity();
    const bool mine = g.thread() % 32 < 16;
    for (int i = 0; mine && i < kChunk; i += 16) m = max_of(m, score.get(j * kChunk + i + lane));
    SPECDEC_UNROLL
    for (int mask = 8; mask > 0; mask /= 2) m = max_of(m, g.shuffle_xor(m, mask));
    float sum = 0;
    if (mine && j < n && sees<kWindow>(p, length.get(j), chunk)) {
      for (int i = 0; i < kChunk; i += 16) {
        const float e = exp2_nonpositive(score.get(j * kChunk + i + lane) - m);
        score.set(j * kChunk + i + lane, e);
        sum += e;
      }
    }
    SPECDEC_UNROLL
    for (int mask = 8; mask > 0; mask /= 2) sum += g.shuffle_xor(sum, mask);
    if (g.thread() % 32 != 0 || j >= n) return;
    stat.set(j, m);
    stat.set(8 + j, sum);
    if (kSplit || !sees<kWindow>(p, length.get(j), chunk)) return;
    if (chunk == first_seen<kWindow>(p, length.get(j)) / kChunk) {
      stat.set(16 + j, m);
      stat.set(24 + j, sum);
      return;
    }
    const Merge merged = merge_of(stat.get(16 + j), stat.get(24 + j), m, sum);
    stat.set(16 + j, merged.m);
    stat.set(24 + j, merged.l);
    stat.set(32 + j, merged.old_factor);
    stat.set(40 + j, merged.new_factor);
  }

  template <class G>
  SPECDEC_GPU void weigh(G& g, const Params& p, int chunk, int most) const {
    const int sub = g.thread() / kDims;
    if (sub >= kSubs) return;
    const auto length = lengths(g, p);
    int visible[kOwn], hidden[kOwn];
    SPECDEC_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int j = sub * kOwn + i;
      const bool any = j < n && sees<kWindow>(p, length.get(j), chunk);
      visible[i] = any ? n_visible(length.get(j), chunk) : 0;
      hidden[i] = any ? n_hidden<kWindow>(p, length.get(j), chunk) : 0;
    }
    const int n_shared =
        p.parents == nullptr ? most : larger(0, smaller(most, first - chunk * kChunk));
    for (int d = g.thread() % kDims; d < p.cache.head_dim; d += kDims) {
      float acc[kOwn] = {};
      add_shared(g, p, chunk, d, sub, visible, hidden, n_shared, acc);
      if (n_shared < most) add_paths(g, p, chunk, d, sub, visible, hidden, n_shared, acc);
      put(g, p, chunk, d, sub, visible, acc);
    }
  }

  template <class G>
  SPECDEC_GPU void add_shared(G& g, const Params& p, int chunk, int d, int sub, const int* visible,
                              const int* hidden, int n_shared, float* acc) const {
    if (n_shared == 0) return;
    const std::byte* part = head_part(g, p.cache, kv_head, chunk * kChunk);
    int all = n_shared;  // see the same; what a query without any adds up is not stored
    SPECDEC_UNROLL
    for (int j = 0; j < kOwn; ++j) all = visible[j] > 0 ? smaller(all, visible[j]) : all;
    int i = 0;
    const auto weight = scores<float>(g);
    if constexpr (kWindow) {  // up to where all that see the chunk see the same
      int last = 0;
      SPECDEC_UNROLL
      for (int j = 0; j < kOwn; ++j) last = larger(last, hidden[j]);
      last = smaller(n_shared, (last + 3) / 4 * 4);
      for (; i < last; ++i) {
        const float value = load_value<kType>(g, p.cache, part, i, d);
        SPECDEC_UNROLL
        for (int j = 0; j < kOwn; ++j) {
          if (i >= hidden[j] && i < visible[j])
            acc[j] = fma_of(weight.get((sub * kOwn + j) * kChunk + i), value, acc[j]);
        }
      }
    }
    const auto weights = scores<Float4>(g);
    constexpr int kBatch = kValueBatch<kType, kQueries>;
    for (; i + kBatch <= all; i += kBatch) {
      float value[kBatch];
      load_values<kType, kBatch>(g, p.cache, part, i, d, value);
      SPECDEC_UNROLL
      for (int k = 0; k < kBatch; k += 4) {
        SPECDEC_UNROLL
        for (int j = 0; j < kOwn; ++j) {
          const Float4 four = weights.get((sub * kOwn + j) * (kChunk / 4) + i / 4 + k / 4);
          SPECDEC_UNROLL
          for (int v = 0; v < 4; ++v) acc[j] = fma_of(four.v[v], value[k + v], acc[j]);
        }
      }
    }
    for (; i < n_shared; ++i) {
      const float value = load_value<kType>(g, p.cache, part, i, d);
      SPECDEC_UNROLL
      for (int j = 0; j < kOwn; ++j) {
        if (i < visible[j])
          acc[j] = fma_of(weight.get((sub * kOwn + j) * kChunk + i), value, acc[j]);
      }
    }
  }

  template <class G>
  SPECDEC_GPU void add_paths(G& g, const Params& p, int chunk, int d, int sub, const int* visible,
                             const int* hidden, int n_shared, float* acc) const {
    const auto weight = scores<float>(g);
    const auto length = lengths(g, p);
    SPECDEC_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int j = sub * kOwn + i;
      for (int position = larger(n_shared, hidden[i]); position < visible[i]; ++position) {
        const int slot =
            slot_of(g, p.parents, first, row(p, j), length.get(j), chunk * kChunk + position);
        const std::byte* part = head_part(g, p.cache, kv_head, slot);
        acc[i] = fma_of(weight.get(j * kChunk + position),
                        load_value<kType>(g, p.cache, part, slot % kChunk, d), acc[i]);
      }
    }
  }

  template <class G>
  SPECDEC_GPU void put(G& g, const Params& p, int chunk, int d, int sub, const int* visible,
                       const float* acc) const {
    const auto stat = stats(g);
    SPECDEC_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int j = sub * kOwn + i;
      if (visible[i] == 0) continue;
      if constexpr (kSplit) {
        const std::int64_t at =
            (std::int64_t{kv_head} * p.n_queries + begin + j) * p.n_chunks + chunk;
        g.store(p.partial_out + at * p.cache.head_dim + d, acc[i]);
        if (d == 0) {
          g.store(p.partial_max + at, stat.get(j));
          g.store(p.partial_sum + at, stat.get(8 + j));
        }
      } else {
        const auto sum = sums(g, p);
        const int at = j * p.cache.head_dim + d;
        const bool is_first = chunk == first_seen<kWindow>(p, lengths(g, p).get(j)) / kChunk;
        sum.set(at, is_first ? acc[i]
                             : fma_of(sum.get(at), stat.get(32 + j), acc[i] * stat.get(40 + j)));
      }
    }
  }

  template <class G>
  SPECDEC_GPU void write_rows(G& g, const Params& p) const {
    const int dim = p.cache.head_dim;
    const auto sum = sums(g, p);
    const auto stat = stats(g);
    for (int at = g.thread(); at < n * dim; at += g.n_threads()) {
      const int j = at / dim;
      float* out = p.out + row(p, j) * p.out_stride + std::int64_t{head(p, j)} * dim;
      g.store(out + at % dim, sum.get(at) * divide(1.0F, stat.get(24 + j)));
    }
  }

  // By the last block of these queries to come here.
  template <class G>
  SPECDEC_GPU void merge_chunks(G& g, const Params& p) const {
    const auto is_last = g.template shared<int>(224);
    g.sync();  // all have written their part
    if (g.thread() == 0) {
      std::int32_t* counter =
          p.counters + kv_head * ((p.n_queries + kQueries - 1) / kQueries) + begin / kQueries;
      g.fence();
      const bool last = g.atomic_add(counter, 1) == p.n_chunks - 1;
      if (last) g.store(counter, 0);
      g.fence();
      is_last.set(0, last ? 1 : 0);
    }
    g.sync();
    if (is_last.get(0) == 0) return;
    const int dim = p.cache.head_dim;
    const auto length = lengths(g, p);
    for (int at = g.thread(); at < n * dim; at += kThreads) {
      const int j = at / dim;
      const std::int64_t base = (std::int64_t{kv_head} * p.n_queries + begin + j) * p.n_chunks;
      float* out = p.out + row(p, j) * p.out_stride + std::int64_t{head(p, j)} * dim;
      g.store(out + at % dim, merged_output<kWindow>(g, p, base, length.get(j), at % dim));
    }
  }
};

}  // namespace specdec::cuda
