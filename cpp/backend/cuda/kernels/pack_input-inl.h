// Rows of activations to the form products want: gathered, normalised, and quantised as
// backend/cpu/quantize-inl.h does. One block per row (and per piece of k without a norm).
#pragma once

#include "backend/cuda/kernels/math-inl.h"

namespace specdec::cuda {

struct PackInputParams {
  const float* x;
  std::int64_t x_stride;
  const std::int32_t* row_index;
  const float* weight;  // of the norm
  const float* bias;
  float epsilon;
  int norm;  // 0 none, 1 RMS, 2 layer
  int n_rows;
  std::int64_t n_in;
  std::int64_t k_per_block;  // a multiple of 256
  // Outputs, null when not wanted.
  float* x32;
  std::uint8_t* q32;
  float* d32;
  std::int32_t* sums32;
  std::uint8_t* q256;
  float* d256;
  std::int32_t* sums256;
};

struct RowInput {
  const float* x;  // null: all zeros
  const float* weight;
  const float* bias;
  float mean, scale;
  bool normalised;

  // Values k, k + step, ..: loaded together, because each load takes long. Zero from `end` on.
  template <int n, class G>
  SPECDEC_GPU void values(G& g, std::int64_t k, std::int64_t step, std::int64_t end,
                          float* out) const {
    SPECDEC_UNROLL
    for (int i = 0; i < n; ++i)
      out[i] = x != nullptr && k + i * step < end ? g.load(x + k + i * step) : 0.0F;
    if (x == nullptr || !normalised) return;
    float w[n];
    SPECDEC_UNROLL
    for (int i = 0; i < n; ++i) w[i] = k + i * step < end ? g.load(weight + k + i * step) : 0.0F;
    SPECDEC_UNROLL
    for (int i = 0; i < n; ++i) out[i] = k + i * step < end ? (out[i] - mean) * scale * w[i] : 0.0F;
    if (bias == nullptr) return;
    SPECDEC_UNROLL
    for (int i = 0; i < n; ++i) w[i] = k + i * step < end ? g.load(bias + k + i * step) : 0.0F;
    SPECDEC_UNROLL
    for (int i = 0; i < n; ++i) out[i] += w[i];
  }
};

// Sum of the 64 chains that the first threads of a block have, in a fixed tree: the CPU's order.
template <class G>
SPECDEC_GPU float sum_chains(G& g, float chain) {
  const auto lanes = g.template shared<float>(0);
  const int t = g.thread();
  if (t < 64) lanes.set(t, chain);
  g.sync();
  if (t < 16)
    lanes.set(64 + t, (lanes.get(t) + lanes.get(16 + t)) + (lanes.get(32 + t) + lanes.get(48 + t)));
  g.sync();
  if (t < 4) {
    lanes.set(80 + t,
              (lanes.get(64 + t) + lanes.get(72 + t)) + (lanes.get(68 + t) + lanes.get(76 + t)));
  }
  g.sync();
  const float sum = (lanes.get(80) + lanes.get(82)) + (lanes.get(81) + lanes.get(83));
  g.sync();
  return sum;
}
inline constexpr int kSumBytes = 84 * 4;  // of shared memory

// Sum of x, or of squared distances from the mean.
template <bool kSquares, class G>
SPECDEC_GPU float sum_row(G& g, const float* x, std::int64_t n, float mean) {
  float acc = 0;
  for (std::int64_t k = g.thread(); g.thread() < 64 && k < n; k += 64) {
    const float v = g.load(x + k);
    acc = kSquares ? fma_of(v - mean, v - mean, acc) : acc + v;
  }
  return sum_chains(g, acc);
}

struct MeanScale {
  float mean, scale;
};

// What a row of n values is normalised with; norm: 1 RMS, 2 layer.
template <class G>
SPECDEC_GPU MeanScale mean_and_scale(G& g, const float* x, std::int64_t n, int norm,
                                     float epsilon) {
  const auto count = static_cast<float>(n);
  const float mean = norm == 2 ? divide(sum_row<false>(g, x, n, 0.0F), count) : 0.0F;
  const float variance = divide(sum_row<true>(g, x, n, mean), count);
  return {mean, divide(1.0F, square_root(variance + epsilon))};
}

struct BlockScale {
  float d, inverse;
};

// From the largest magnitude of a block; bad: a value is not finite.
SPECDEC_GPU BlockScale scale_of(float largest, bool bad) {
  const float inverse = largest > 0 ? divide(127.0F, largest) : 0.0F;
  const bool fine = !bad && inverse <= 3.0e38F;
  return {fine ? divide(largest, 127.0F) : bad ? not_a_number() : 0.0F, fine ? inverse : 0.0F};
}

template <class G>
SPECDEC_GPU float warp_max(G& g, float x) {
  SPECDEC_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) x = max_of(x, g.shuffle_xor(x, mask));
  return x;
}
template <class G>
SPECDEC_GPU int warp_or(G& g, int x) {
  SPECDEC_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) x |= g.shuffle_xor(x, mask);
  return x;
}

// Stores the codes of 32 k, one per lane, as fragments of column `column` of its tile.
template <class G>
SPECDEC_GPU void store_codes(G& g, std::uint8_t* block, int column, int code) {
  const int k = g.thread() % 32;
  std::uint32_t word = (static_cast<std::uint32_t>(code) & 0xFFU) << (8 * (k % 4));
  word |= g.shuffle_xor(word, 1);
  word |= g.shuffle_xor(word, 2);
  if (k % 4 == 0) {
    const int lane = column * 4 + k % 16 / 4;
    g.store(reinterpret_cast<std::uint32_t*>(block + lane * 8 + k / 16 * 4), word);
  }
}

struct PackInput {
  using Params = PackInputParams;
  static constexpr bool kWaits = true;
  static constexpr int kMaxThreads = 256;
  static constexpr int kMinBlocks = 2;

  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    const int row = g.block();
    if (row == 0 && p.norm != 0) prefetch_norm(g, p);
    g.wait_for_previous();
    // Rows behind the last, and those of an index below 0, fill up a tile with zeros.
    std::int64_t source = row < p.n_rows ? row : -1;
    if (source >= 0 && p.row_index != nullptr) source = g.load(p.row_index + row);
    RowInput in{};
    if (source >= 0) {
      in.x = p.x + source * p.x_stride;
      in.weight = p.weight;
      in.bias = p.norm == 2 ? p.bias : nullptr;
      in.normalised = p.norm != 0;
      if (in.normalised) {
        const MeanScale found = mean_and_scale(g, in.x, p.n_in, p.norm, p.epsilon);
        in.mean = found.mean;
        in.scale = found.scale;
      }
    }
    const std::int64_t begin = g.block_y() * p.k_per_block;
    const std::int64_t end = begin + p.k_per_block;
    if (p.x32 != nullptr) put_floats(g, p, in, row, begin, end);
    if (p.q32 != nullptr) put_q32(g, p, in, row, begin, end);
    if (p.q256 != nullptr) put_q256(g, p, in, row, begin, end);
  }

 private:
  template <class G>
  static SPECDEC_GPU void prefetch_norm(G& g, const Params& p) {
    for (std::int64_t k = g.thread() * 32; k < p.n_in; k += g.n_threads() * 32) {
      g.prefetch(p.weight + k);
      if (p.bias != nullptr) g.prefetch(p.bias + k);
    }
  }

  static SPECDEC_GPU std::int64_t clamp_end(std::int64_t end, std::int64_t n) {
    return end < n ? end : n;
  }

  template <class G>
  static SPECDEC_GPU void put_floats(G& g, const Params& p, const RowInput& in, int row,
                                     std::int64_t begin, std::int64_t end) {
    constexpr int kBatch = 4;
    const std::int64_t n_padded = (p.n_in + 15) / 16 * 16;
    float* out = p.x32 + row / 8 * n_padded * 8 + row % 8;
    const std::int64_t last = clamp_end(end, n_padded);
    const int step = g.n_threads();
    for (std::int64_t k = begin + g.thread(); k < last; k += kBatch * step) {
      float v[kBatch];
      in.values<kBatch>(g, k, step, p.n_in, v);
      SPECDEC_UNROLL
      for (int i = 0; i < kBatch; ++i) {
        if (k + i * step < last) g.store(out + (k + i * step) * 8, v[i]);
      }
    }
  }

  // A warp takes kBatch blocks of 32 at a time.
  template <class G>
  static SPECDEC_GPU void put_q32(G& g, const Params& p, const RowInput& in, int row,
                                  std::int64_t begin, std::int64_t end) {
    constexpr int kBatch = 4;
    const std::int64_t n_padded = (p.n_in + 63) / 64 * 64;
    const int lane = g.thread() % 32;
    const std::int64_t last = clamp_end(end, n_padded);
    for (std::int64_t k = begin + g.thread() / 32 * (32 * kBatch); k < last;
         k += g.n_threads() * kBatch) {
      float v[kBatch];
      in.values<kBatch>(g, k + lane, 32, p.n_in, v);
      SPECDEC_UNROLL
      for (int i = 0; i < kBatch; ++i) {
        const std::int64_t at = k + 32 * i;
        if (at >= last) break;  // the same for the warp
        const bool bad = warp_or(g, is_finite(v[i]) ? 0 : 1) != 0;
        const BlockScale scale = scale_of(warp_max(g, magnitude(v[i])), bad);
        const int code = bad ? 0 : to_int8(v[i] * scale.inverse);
        int sum = code;
        SPECDEC_UNROLL
        for (int mask = 16; mask > 0; mask /= 2) sum += g.shuffle_xor(sum, mask);
        const std::int64_t block = (row / 8 * n_padded + at) / 32;
        store_codes(g, p.q32 + block * 256, row % 8, code);
        if (lane == 0) {
          g.store(p.d32 + block * 8 + row % 8, scale.d);
          g.store(p.sums32 + block * 8 + row % 8, sum);
        }
      }
    }
  }

  template <class G>
  static SPECDEC_GPU void put_q256(G& g, const Params& p, const RowInput& in, int row,
                                   std::int64_t begin, std::int64_t end) {
    const int lane = g.thread() % 32;
    for (std::int64_t k = begin + g.thread() / 32 * 256; k < clamp_end(end, p.n_in);
         k += g.n_threads() / 32 * 256) {
      float v[8];
      in.values<8>(g, k + lane, 32, p.n_in, v);
      float largest = 0;
      int bad = 0;
      SPECDEC_UNROLL
      for (int i = 0; i < 8; ++i) {
        largest = max_of(largest, magnitude(v[i]));
        bad |= is_finite(v[i]) ? 0 : 1;
      }
      bad = warp_or(g, bad);
      const BlockScale scale = scale_of(warp_max(g, largest), bad != 0);
      const std::int64_t block = (row / 8 * p.n_in + k) / 32;  // of 32 codes
      SPECDEC_UNROLL
      for (int i = 0; i < 8; ++i) {
        const int code = bad != 0 ? 0 : to_int8(v[i] * scale.inverse);
        int sum = code;
        SPECDEC_UNROLL
        for (int mask = 8; mask > 0; mask /= 2) sum += g.shuffle_xor(sum, mask);
        store_codes(g, p.q256 + (block + i) * 256, row % 8, code);
        if (lane % 16 == 0) g.store(p.sums256 + (block + i) * 16 + lane / 16 * 8 + row % 8, sum);
      }
      if (lane == 0) g.store(p.d256 + block + row % 8, scale.d);
    }
  }
};

struct NormRowsParams {
  const float* x;
  std::int64_t x_stride;
  const float* weight;
  const float* bias;
  float epsilon;
  int norm;  // 1 RMS, 2 layer
  std::int64_t n;
  float* dst;  // may be x
  std::int64_t dst_stride;
  int accumulate;
};

// grid: rows x groups of n values
struct NormRows {
  using Params = NormRowsParams;
  static constexpr bool kWaits = true;
  static constexpr int kMaxThreads = 128;
  static constexpr int kMinBlocks = 2;

  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    g.wait_for_previous();
    const std::int64_t at = g.block_y() * p.n;
    RowInput in{};
    in.x = p.x + g.block() * p.x_stride + at;
    in.weight = p.weight;
    in.bias = p.norm == 2 ? p.bias : nullptr;
    in.normalised = true;
    const MeanScale found = mean_and_scale(g, in.x, p.n, p.norm, p.epsilon);
    in.mean = found.mean;
    in.scale = found.scale;
    float* dst = p.dst + g.block() * p.dst_stride + at;
    for (std::int64_t k = g.thread(); k < p.n; k += g.n_threads()) {
      float v = 0;
      in.values<1>(g, k, 1, p.n, &v);
      g.store(dst + k, p.accumulate != 0 ? g.load(static_cast<const float*>(dst + k)) + v : v);
    }
  }
};

}  // namespace specdec::cuda
