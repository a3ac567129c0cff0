// What a head's logits come down to. Logits lie compactly, [n_rows][stride]: column c is token
// blocks[c / 16] * 16 + c % 16, or c when all blocks are computed. Results as those of
// backend/cpu/head_reducer.cc.
#pragma once

#include "backend/cuda/kernels/math-inl.h"

namespace specdec::cuda {

inline constexpr int kScanLogits = 2048;  // per block of threads
inline constexpr int kSumLogits = 128;    // exponentials summed together

struct HeadParams {
  const float* logits;  // compact
  std::int64_t stride;
  std::int64_t n_columns;
  std::int64_t n_tokens;
  const std::int32_t* blocks;  // or null
  int n_rows;
  int n_scans;  // blocks of kScanLogits
  int top_k;
  int log_k;            // results are 2^log_k keys per scan
  std::uint64_t* keys;  // [n_rows][n_scans][2^log_k]
  std::int32_t* bad;    // [n_rows][n_scans]
  float* group_max;     // [n_rows][n_scans * 16], null when no log-sum-exp is wanted
  float* group_sum;
  std::int32_t* top_tokens;  // TopToken pairs [n_rows][top_k][2]: token, bits of the logit
  float* log_sum_exp;
  float* full;  // [n_rows][full_stride] or null
  std::int64_t full_stride;
  float soft_cap;
  float* capped;  // logits, when there is a cap
};

template <class G>
SPECDEC_GPU std::int64_t token_of(G& g, const HeadParams& p, std::int64_t column) {
  if (p.blocks == nullptr) return column;
  return std::int64_t{g.load(p.blocks + column / 16)} * 16 + column % 16;
}

// Larger keys are better: by logit, then by the lower column. 0: none.
SPECDEC_GPU std::uint64_t key_of(float logit, std::uint32_t column) {
  const std::uint32_t bits = logit == 0.0F ? 0U : to_bits(logit);  // -0 equals 0
  const std::uint32_t order = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return static_cast<std::uint64_t>(order) << 32 | (0xFFFFFFFFU - column);
}
SPECDEC_GPU std::uint32_t column_of(std::uint64_t key) {
  return 0xFFFFFFFFU - static_cast<std::uint32_t>(key & 0xFFFFFFFFU);
}

// The best key of all threads, in all of them. warps: memory for one key per warp.
template <class G, class Keys>
SPECDEC_GPU std::uint64_t best_of_block(G& g, const Keys& warps, std::uint64_t key) {
  SPECDEC_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) {
    const std::uint32_t high = g.shuffle_xor(static_cast<std::uint32_t>(key >> 32), mask);
    const std::uint32_t low = g.shuffle_xor(static_cast<std::uint32_t>(key & 0xFFFFFFFFU), mask);
    const std::uint64_t other = static_cast<std::uint64_t>(high) << 32 | low;
    key = key < other ? other : key;
  }
  if (g.thread() % 32 == 0) warps.set(g.thread() / 32, key);
  g.sync();
  for (int w = 0; w < g.n_threads() / 32; ++w) {
    const std::uint64_t other = warps.get(w);
    key = key < other ? other : key;
  }
  return key;
}

// Sorts runs of 2^log_run keys, even runs best first, odd runs worst first; only the last merge
// step when they are bitonic already.
template <class G, class Keys>
SPECDEC_GPU void sort_runs(G& g, const Keys& keys, int n, int log_run, bool bitonic) {
  for (int size = bitonic ? log_run : 1; size <= log_run; ++size) {
    for (int stride = size - 1; stride >= 0; --stride) {
      for (int i = g.thread(); i < n / 2; i += g.n_threads()) {
        const int low = (i >> stride << (stride + 1)) + (i & ((1 << stride) - 1));
        const int high = low + (1 << stride);
        const std::uint64_t a = keys.get(low);
        const std::uint64_t b = keys.get(high);
        const bool descending = (low >> size & 1) == 0;
        if (descending ? a < b : a > b) {
          keys.set(low, b);
          keys.set(high, a);
        }
      }
      g.sync();
    }
  }
}

// The best 2^log_k of n keys to the front, best first; n is a power of two, at most 8 * n_threads.
template <class G, class Keys>
SPECDEC_GPU void select_top(G& g, const Keys& keys, int n, int log_k) {
  const int k = 1 << log_k;
  sort_runs(g, keys, n, log_k, false);
  while (n > k) {
    n /= 2;
    std::uint64_t best[4] = {};  // set: the compiler cannot see that unset ones stay unread
    SPECDEC_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int i = g.thread() + j * g.n_threads();
      if (i >= n) continue;
      const int at = (i >> log_k << (log_k + 1)) + (i & (k - 1));
      const std::uint64_t a = keys.get(at);
      const std::uint64_t b = keys.get(at + k);
      best[j] = a < b ? b : a;
    }
    g.sync();
    SPECDEC_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int i = g.thread() + j * g.n_threads();
      if (i < n) keys.set(i, best[j]);
    }
    g.sync();
    sort_runs(g, keys, n, log_k, true);
  }
}

// Before all else: logits to soft_cap * tanh(logit / soft_cap), where they are.
struct HeadCap {
  using Params = HeadParams;
  static constexpr int kMaxThreads = 256;
  static constexpr int kMinBlocks = 2;

  // grid: pieces x rows
  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    const std::int64_t column = std::int64_t{g.block()} * g.n_threads() + g.thread();
    if (column >= p.n_columns) return;
    const std::int64_t at = g.block_y() * p.stride + column;
    const float x = g.load_fresh(p.capped + at) * divide(1.0F, p.soft_cap);
    g.store(p.capped + at, tanh_of(x) * p.soft_cap);
  }
};

// Stage 1: the best of kScanLogits logits, and sums of exponentials.
struct HeadScan {
  using Params = HeadParams;
  static constexpr int kMaxThreads = 256;
  static constexpr int kMinBlocks = 2;

  // grid: scans x rows
  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    const auto keys = g.template shared<std::uint64_t>(0);
    const auto flag = g.template shared<int>(kScanLogits * 8);
    const float* row = p.logits + g.block_y() * p.stride;
    const std::int64_t first = std::int64_t{g.block()} * kScanLogits;
    const std::int64_t scan = std::int64_t{g.block_y()} * p.n_scans + g.block();
    int bad = 0;
    std::uint64_t best = 0;  // of this thread
    for (int i = g.thread(); i < kScanLogits; i += g.n_threads()) {
      const float x = logit(g, p, row, first + i);
      bad |= x != x || x == infinity() ? 1 : 0;
      const std::uint64_t key =
          x > -infinity() ? key_of(x, static_cast<std::uint32_t>(first + i)) : 0;
      best = best < key ? key : best;
      if (p.log_k > 0) keys.set(i, key);
    }
    SPECDEC_UNROLL
    for (int mask = 16; mask > 0; mask /= 2) bad |= g.shuffle_xor(bad, mask);
    if (g.thread() % 32 == 0) flag.set(g.thread() / 32, bad);
    if (p.group_max != nullptr) {
      for (int group = g.thread() / 32; group < kScanLogits / kSumLogits;
           group += g.n_threads() / 32)
        sum_group(g, p, row, first, group, scan);
    }
    g.sync();
    if (g.thread() == 0) {
      for (int w = 1; w < g.n_threads() / 32; ++w) bad |= flag.get(w);
      g.store(p.bad + scan, bad);
    }
    if (p.log_k == 0) {
      best = best_of_block(g, keys, best);
      if (g.thread() == 0) g.store(p.keys + scan, best);
      return;
    }
    select_top(g, keys, kScanLogits, p.log_k);
    for (int i = g.thread(); i < 1 << p.log_k; i += g.n_threads())
      g.store(p.keys + (scan << p.log_k) + i, keys.get(i));
  }

 private:
  template <class G>
  static SPECDEC_GPU float logit(G& g, const Params& p, const float* row, std::int64_t column) {
    if (column >= p.n_columns || token_of(g, p, column) >= p.n_tokens) return -infinity();
    return g.load(row + column);
  }

  // By a warp: 64 chains of two terms and the CPU's tree.
  template <class G>
  static SPECDEC_GPU void sum_group(G& g, const Params& p, const float* row, std::int64_t first,
                                    int group, std::int64_t scan) {
    const int lane = g.thread() % 32;
    float x[4];
    float m = -infinity();
    SPECDEC_UNROLL
    for (int j = 0; j < 4; ++j) {
      // x[0..1]: chain lane / 16 * 2, x[2..3]: the next one
      const int at = lane % 16 + (lane / 16 * 2 + j / 2) * 16 + j % 2 * 64;
      x[j] = logit(g, p, row, first + group * kSumLogits + at);
      m = max_of(m, x[j]);
    }
    SPECDEC_UNROLL
    for (int mask = 16; mask > 0; mask /= 2) m = max_of(m, g.shuffle_xor(m, mask));
    float sum = 0;
    if (m > -infinity()) {
      SPECDEC_UNROLL
      for (int j = 0; j < 4; ++j) x[j] = x[j] > -infinity() ? exp_of(x[j] - m) : 0.0F;
      sum = (x[0] + x[1]) + (x[2] + x[3]);
    }
    SPECDEC_UNROLL
    for (int mask = 16; mask > 0; mask /= 2) sum += g.shuffle_xor(sum, mask);
    if (lane != 0) return;
    const std::int64_t at = scan * (kScanLogits / kSumLogits) + group;
    g.store(p.group_max + at, m);
    g.store(p.group_sum + at, sum);
  }
};

// Stage 2: one block per row.
struct HeadMerge {
  using Params = HeadParams;
  static constexpr int kMaxThreads = 256;
  static constexpr int kMinBlocks = 2;

  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    const int row = g.block();
    const auto keys = g.template shared<std::uint64_t>(0);
    const std::uint64_t* lists = p.keys + (std::int64_t{row} * p.n_scans << p.log_k);
    if (p.log_k == 0) {
      std::uint64_t best = 0;
      for (int i = g.thread(); i < p.n_scans; i += g.n_threads()) {
        const std::uint64_t key = g.load(lists + i);
        best = best < key ? key : best;
      }
      best = best_of_block(g, keys, best);
      g.sync();
      if (g.thread() == 0) keys.set(0, best);
      g.sync();
    } else {
      merge_lists(g, p, keys, lists);
    }
    int bad = 0;
    for (int i = 0; i < p.n_scans; ++i) bad |= g.load(p.bad + std::int64_t{row} * p.n_scans + i);
    const float* logits = p.logits + row * p.stride;
    for (int i = g.thread(); i < p.top_k; i += g.n_threads()) {
      const std::uint64_t key = bad != 0 ? 0 : keys.get(i);
      std::int32_t token = -1;
      float value = 0;
      if (key != 0) {
        const std::uint32_t column = column_of(key);
        token = static_cast<std::int32_t>(token_of(g, p, column));
        value = g.load(logits + column);
      }
      std::int32_t* out = p.top_tokens + (std::int64_t{row} * p.top_k + i) * 2;
      g.store(out, token);
      g.store(reinterpret_cast<float*>(out + 1), value);
    }
    if (p.log_sum_exp == nullptr) return;
    const std::uint64_t best = bad != 0 ? 0 : keys.get(0);
    g.sync();
    sum_row(g, p, row, best);
  }

 private:
  // The best keys of all scans to the front.
  template <class G, class Keys>
  static SPECDEC_GPU void merge_lists(G& g, const Params& p, const Keys& keys,
                                      const std::uint64_t* lists) {
    const int k = 1 << p.log_k;
    const int per_round = (kScanLogits >> p.log_k) - 1;  // lists beside the best so far
    for (int i = g.thread(); i < k; i += g.n_threads()) keys.set(i, 0);
    for (int done = 0; done < p.n_scans; done += per_round) {
      for (int i = k + g.thread(); i < kScanLogits; i += g.n_threads()) {
        const int list = done + (i >> p.log_k) - 1;
        keys.set(i, list < p.n_scans
                        ? g.load(lists + (std::int64_t{list} << p.log_k) + (i & (k - 1)))
                        : 0);
      }
      g.sync();
      select_top(g, keys, kScanLogits, p.log_k);
    }
  }

  // The groups' sums relative to the best logit, in double: 256 chains and a fixed tree.
  template <class G>
  static SPECDEC_GPU void sum_row(G& g, const Params& p, int row, std::uint64_t best) {
    if (best == 0) {
      if (g.thread() == 0) g.store(p.log_sum_exp + row, not_a_number());
      return;
    }
    const double top = static_cast<double>(g.load(p.logits + row * p.stride + column_of(best)));
    const auto sums = g.template shared<double>(0);
    const int n_groups = p.n_scans * (kScanLogits / kSumLogits);
    double sum = 0;
    for (int i = g.thread(); i < n_groups; i += g.n_threads()) {
      const std::int64_t at = std::int64_t{row} * n_groups + i;
      const float part = g.load(static_cast<const float*>(p.group_sum) + at);
      if (part > 0.0F) {
        sum += static_cast<double>(part) *
               exp(static_cast<double>(g.load(static_cast<const float*>(p.group_max) + at)) - top);
      }
    }
    sums.set(g.thread(), sum);
    for (int half = g.n_threads() / 2; half > 0; half /= 2) {
      g.sync();
      if (g.thread() < half)
        sums.set(g.thread(), sums.get(g.thread()) + sums.get(g.thread() + half));
    }
    if (g.thread() == 0) g.store(p.log_sum_exp + row, static_cast<float>(top + log(sums.get(0))));
  }
};

// Rows of full logits, all computed.
struct HeadCopy {
  using Params = HeadParams;
  static constexpr int kMaxThreads = 256;
  static constexpr int kMinBlocks = 2;

  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    const std::int64_t token = std::int64_t{g.block()} * g.n_threads() + g.thread();
    if (token >= p.n_tokens) return;
    g.store(p.full + g.block_y() * p.full_stride + token,
            g.load(p.logits + g.block_y() * p.stride + token));
  }
};

// Rows of full logits: -infinity where nothing was computed.
struct HeadScatter {
  using Params = HeadParams;
  static constexpr int kMaxThreads = 256;
  static constexpr int kMinBlocks = 2;

  // grid: pieces x rows; blocks are ascending, so a token's block is found by bisection.
  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    const std::int64_t token = std::int64_t{g.block()} * g.n_threads() + g.thread();
    if (token >= p.n_tokens) return;
    const std::int64_t wanted = token / 16;
    std::int64_t low = 0;
    std::int64_t high = p.n_columns / 16;
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      if (g.load(p.blocks + middle) < wanted) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    const bool found = low < p.n_columns / 16 && g.load(p.blocks + low) == wanted;
    const float* row = p.logits + g.block_y() * p.stride;
    g.store(p.full + g.block_y() * p.full_stride + token,
            found ? g.load(row + low * 16 + token % 16) : -infinity());
  }
};

}  // namespace specdec::cuda
