// Mixtures of experts without the host: which experts a row chooses, rows sorted by them for the
// products, and the weighted sum of what comes out. A row beside its k-th expert is a pair, number
// row * n_used + k. Products see pairs as columns ("slots"), every tile of 8 of one expert.
#pragma once

#include "backend/cuda/kernels/math-inl.h"
#include "backend/cuda/kernels/pack_input-inl.h"

namespace specdec::cuda {

struct ChooseParams {
  const float* logits;  // [rows, stride]
  std::int64_t stride;
  int n_experts, n_used;
  int of_chosen;         // weights are of the chosen alone
  std::int32_t* chosen;  // [rows, n_used]
  float* weights;        // [rows, n_used]
};

// grid: rows. Both warps choose, with the same result; both are needed for the sum.
struct Choose {
  using Params = ChooseParams;
  static constexpr int kMaxThreads = 64;
  static constexpr int kMinBlocks = 1;

  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    const float* logits = p.logits + g.block() * p.stride;
    std::int32_t* chosen = p.chosen + std::int64_t{g.block()} * p.n_used;
    float* weights = p.weights + std::int64_t{g.block()} * p.n_used;
    const int lane = g.thread() % 32;
    const bool writes = g.thread() == 0;
    int bad = 0;
    for (int e = lane; e < p.n_experts; e += 32) bad |= is_finite(g.load(logits + e)) ? 0 : 1;
    bad = warp_or(g, bad);
    float last = infinity();
    float most = 0;
    float sum = 0;
    int at = -1;
    for (int k = 0; k < p.n_used; ++k) {
      at = best_after(g, p, logits, last, at, &last);
      if (k == 0) most = last;
      const float weight = exp_of(last - most);
      sum += weight;
      if (!writes) continue;
      g.store(chosen + k, bad != 0 ? k : at);
      g.store(weights + k, weight);
    }
    if (p.of_chosen == 0) sum = sum_exp(g, logits, p.n_experts, most);
    for (int k = 0; writes && k < p.n_used; ++k) {
      const float weight = g.load(static_cast<const float*>(weights + k));
      g.store(weights + k, bad != 0 ? not_a_number() : divide(weight, sum));
    }
  }

 private:
  // The best expert behind `last`, which is number `last_at`: of equal ones those with the lower
  // number come first.
  template <class G>
  static SPECDEC_GPU int best_after(G& g, const Params& p, const float* logits, float last,
                                    int last_at, float* best_logit) {
    float best = 0.0F - infinity();
    int at = p.n_experts;  // none
    for (int e = g.thread() % 32; e < p.n_experts; e += 32) {
      const float logit = g.load(logits + e);
      const bool behind = logit < last || (logit == last && e > last_at);
      if (behind && (at == p.n_experts || logit > best)) {
        best = logit;
        at = e;
      }
    }
    SPECDEC_UNROLL
    for (int mask = 16; mask > 0; mask /= 2) {
      const float other = g.shuffle_xor(best, mask);
      const int other_at = g.shuffle_xor(at, mask);
      const bool better = other > best || (other == best && other_at < at);
      if (other_at < p.n_experts && (at == p.n_experts || better)) {
        best = other;
        at = other_at;
      }
    }
    *best_logit = best;
    return at;
  }

  // Sum of e^(logit - most), in 64 chains and a fixed tree: the CPU's order.
  template <class G>
  static SPECDEC_GPU float sum_exp(G& g, const float* logits, int n, float most) {
    float acc = 0;
    for (int e = g.thread(); e < n; e += 64) acc = acc + exp_of(g.load(logits + e) - most);
    return sum_chains(g, acc);
  }
};

struct GroupParams {
  const std::int32_t* chosen;  // [n_pairs]
  int n_pairs, n_used, n_experts;
  int n_tiles;            // as many as there can be
  std::int32_t* experts;  // [n_tiles] of a tile of slots, -1: none
  std::int32_t* rows;     // [8 n_tiles] row of a slot, -1: none
  std::int32_t* slots;    // [8 n_tiles] the slot, -1: none
  std::int32_t* slot_of;  // [n_pairs]
};

// grid: one block; each thread takes whole experts.
struct Group {
  using Params = GroupParams;
  static constexpr int kMaxThreads = 256;
  static constexpr int kMinBlocks = 1;

  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    const auto n_tiles = g.template shared<std::int32_t>(0);  // of each expert
    for (int e = g.thread(); e < p.n_experts; e += g.n_threads()) {
      int n = 0;
      for (int i = 0; i < p.n_pairs; ++i) n += g.load(p.chosen + i) == e ? 1 : 0;
      n_tiles.set(e, (n + 7) / 8);
    }
    g.sync();
    int first = 0;
    int before = 0;  // experts that `first` counts
    for (int e = g.thread(); e < p.n_experts; e += g.n_threads()) {
      for (; before < e; ++before) first += n_tiles.get(before);
      put_expert(g, p, e, first, first + n_tiles.get(e));
    }
    for (; before < p.n_experts; ++before) first += n_tiles.get(before);
    for (int tile = first + g.thread(); tile < p.n_tiles; tile += g.n_threads())
      put_end(g, p, tile, -1, 8 * tile);
  }

 private:
  // Tiles [first, end) are those of the pairs that have chosen expert e.
  template <class G>
  static SPECDEC_GPU void put_expert(G& g, const Params& p, int e, int first, int end) {
    if (first == end) return;
    int slot = 8 * first;
    for (int i = 0; i < p.n_pairs; ++i) {
      if (g.load(p.chosen + i) != e) continue;
      g.store(p.slot_of + i, slot);
      g.store(p.rows + slot, i / p.n_used);
      g.store(p.slots + slot, slot);
      ++slot;
    }
    for (int tile = first; tile + 1 < end; ++tile) g.store(p.experts + tile, e);
    put_end(g, p, end - 1, e, slot);
  }
  // Tile of expert e, with nothing in it from `slot` on.
  template <class G>
  static SPECDEC_GPU void put_end(G& g, const Params& p, int tile, int e, int slot) {
    g.store(p.experts + tile, e);
    for (; slot < 8 * tile + 8; ++slot) {
      g.store(p.rows + slot, -1);
      g.store(p.slots + slot, -1);
    }
  }
};

struct CombineParams {
  const float* y;  // [slots, y_stride]
  std::int64_t y_stride;
  const std::int32_t* slot_of;  // [rows, n_used]
  const float* weights;         // [rows, n_used]
  int n_used;
  std::int64_t n;
  float* dst;  // [rows, dst_stride]
  std::int64_t dst_stride;
};

// grid: pieces of n x rows. dst += the sum of weights * y, in the order of k.
struct Combine {
  using Params = CombineParams;
  static constexpr int kMaxThreads = 256;
  static constexpr int kMinBlocks = 2;
  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    const std::int64_t i = std::int64_t{g.block()} * g.n_threads() + g.thread();
    if (i >= p.n) return;
    const std::int64_t pair = std::int64_t{g.block_y()} * p.n_used;
    float sum = 0;
    for (int k = 0; k < p.n_used; ++k) {
      const std::int64_t slot = g.load(p.slot_of + pair + k);
      const float part = g.load(p.weights + pair + k) * g.load(p.y + slot * p.y_stride + i);
      sum = k == 0 ? part : sum + part;
    }
    float* dst = p.dst + g.block_y() * p.dst_stride + i;
    g.store(dst, g.load(static_cast<const float*>(dst)) + sum);
  }
};

}  // namespace specdec::cuda
