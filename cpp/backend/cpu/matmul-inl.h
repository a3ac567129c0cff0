// The matmul kernels, written once over Simd (int_*.h) and the formats' tile traits. Included
// inside a target region with SPECDEC_ISA naming the namespace.
//
// Bits never depend on the number of columns, threads or the instruction set: integer block dots
// are exact, each lane is one output row, and a (row, column) pair always sees the same chain of
// float multiply-adds over k in ascending order.
#pragma once

namespace specdec::SPECDEC_ISA {

// Columns that share one pass over the decoded registers: enough chains to hide the dot latency.
inline constexpr int kGroup = 4;
// How far ahead of the stream of tiles to prefetch, in bytes.
inline constexpr int kPrefetchAhead = 4096;

template <int kBytes>
SPECDEC_INLINE inline void prefetch_lines(const std::uint8_t* p) {
  for (int i = 0; i < kBytes; i += 64) Simd::prefetch(p + i);
}

// Calls f<first, n>() for groups of at most kGroup of kCols columns, all known at compile time.
template <int kCols, int kFirst = 0, class F>
SPECDEC_INLINE inline void for_groups(F&& f) {
  constexpr int kN = kCols - kFirst < kGroup ? kCols - kFirst : kGroup;
  f.template operator()<kFirst, kN>();
  if constexpr (kFirst + kN < kCols) for_groups<kCols, kFirst + kN>(f);
}

// Start of a dot: minus the codes' offset times the activations, so that the offset costs nothing.
template <int kZeroShift>
SPECDEC_INLINE inline Simd::I32 dot_start(const std::int32_t* neg_sum) {
  if constexpr (kZeroShift < 0) {
    return Simd::zero();
  } else {
    return Simd::shift_left<kZeroShift>(Simd::set1(*neg_sum));
  }
}

// Formats with blocks of 32: acc += d_w * d_a * dot (+ m_w * d_a * sum_a), block after block.
template <class Tile, int kCols>
void tile_q32(const std::uint8_t* tiles, const Panel& panel, float* out) {
  using S = Simd;
  constexpr int kTileBytes = Tile::kHeaderBytes + 2 * Tile::kBlockBytes;
  const std::int64_t n_tiles = (panel.n_in + 63) / 64;
  for (int lane = 0; lane < kTileRows; lane += S::kLanes) {
    S::F32 acc[kCols];
    unroll<kCols>([&]<int kC>() SPECDEC_INLINE { acc[kC] = S::f_zero(); });
    const std::uint8_t* tile = tiles;
    for (std::int64_t t = 0; t < n_tiles; ++t, tile += kTileBytes) {
      for (int b = 0; b < 2; ++b) {
        const std::int64_t block = 2 * t + b;
        const std::uint8_t* lines = tile + Tile::kHeaderBytes + b * Tile::kBlockBytes;
        prefetch_lines<Tile::kBlockBytes + Tile::kHeaderBytes / 2>(tile + kPrefetchAhead +
                                                                   b * kTileBytes / 2);
        S::Bytes w[8];
        Tile::template decode<S>(lines, lane, w);
        const S::F32 d = S::load_f16(tile + 32 * b + 2 * lane);
        const std::int8_t* a = panel.q + block * kCols * 32;
        const float* da = panel.d + block * kCols;
        const std::int32_t* neg_sums = panel.neg_sums + block * kCols;
        for_groups<kCols>([&]<int kC0, int kN>() SPECDEC_INLINE {
          S::I32 dot[kN];
          unroll<kN>([&]<int kC>() SPECDEC_INLINE {
            dot[kC] = dot_start<Tile::kZeroShift>(neg_sums + kC0 + kC);
          });
          S::template dot<Tile::kMaxWeight, 8, kN>(w, a + 32 * kC0, dot);
          unroll<kN>([&]<int kC>() SPECDEC_INLINE {
            acc[kC0 + kC] =
                S::f_fma(S::to_f32(dot[kC]), S::f_mul(d, S::f_set1(da[kC0 + kC])), acc[kC0 + kC]);
          });
        });
        if constexpr (Tile::kHasMin) {
          const S::F32 m = S::load_f16(tile + 64 + 32 * b + 2 * lane);
          const float* sums = panel.scaled_sums + block * kCols;
          unroll<kCols>([&]<int kC>() SPECDEC_INLINE {
            acc[kC] = S::f_fma(m, S::f_set1(sums[kC]), acc[kC]);
          });
        }
      }
    }
    unroll<kCols>([&]<int kC>()
                      SPECDEC_INLINE { S::f_store(out + kC * kTileRows + lane, acc[kC]); });
  }
}

// K-quants: integers over 256 k, then acc += (d_w d_a) * sum, acc -= (dmin_w d_a) * min_sum.
template <class Tile, int kCols>
void tile_q256(const std::uint8_t* tiles, const Panel& panel, float* out) {
  using S = Simd;
  constexpr int kTileBytes = Tile::kLinesOffset + 8 * Tile::kBlockBytes;
  constexpr int kVectors = Tile::kSubBlock / 4;  // per sub-block
  constexpr int kSubs = 32 / Tile::kSubBlock;    // sub-blocks per 32
  const std::int64_t n_tiles = panel.n_in / 256;
  for (int lane = 0; lane < kTileRows; lane += S::kLanes) {
    S::F32 acc[kCols];
    unroll<kCols>([&]<int kC>() SPECDEC_INLINE { acc[kC] = S::f_zero(); });
    const std::uint8_t* tile = tiles;
    for (std::int64_t t = 0; t < n_tiles; ++t, tile += kTileBytes) {
      S::I32 sum[kCols];
      unroll<kCols>([&]<int kC>() SPECDEC_INLINE { sum[kC] = S::zero(); });
      for (int b = 0; b < 8; ++b) {
        const std::int64_t block = 8 * t + b;
        prefetch_lines<(kTileBytes + 511) / 512 * 64>(tile + kPrefetchAhead +
                                                      b * ((kTileBytes + 511) / 512 * 64));
        S::Bytes w[8];
        Tile::template decode<S>(tile + Tile::kLinesOffset + b * Tile::kBlockBytes, lane, w);
        const std::int8_t* a = panel.q + block * kCols * 32;
        const std::int32_t* neg_sums = panel.neg_sums + 2 * block * kCols;  // per 16
        for (int s = 0; s < kSubs; ++s) {
          const S::I32 scale = Tile::template scale<S>(tile, b * kSubs + s, lane);
          for_groups<kCols>([&]<int kC0, int kN>() SPECDEC_INLINE {
            S::I32 dot[kN];
            unroll<kN>([&]<int kC>() SPECDEC_INLINE {
              dot[kC] = dot_start<Tile::kZeroShift>(neg_sums + s * kCols + kC0 + kC);
            });
            S::template dot<Tile::kMaxWeight, kVectors, kN>(w + s * kVectors,
                                                            a + 32 * kC0 + 4 * s * kVectors, dot);
            unroll<kN>([&]<int kC>() SPECDEC_INLINE {
              sum[kC0 + kC] = S::add(sum[kC0 + kC], S::mul(scale, dot[kC]));
            });
          });
        }
      }
      const S::F32 d = S::load_f16(tile + 2 * lane);
      const float* da = panel.d + t * kCols;
      unroll<kCols>([&]<int kC>() SPECDEC_INLINE {
        acc[kC] = S::f_fma(S::to_f32(sum[kC]), S::f_mul(d, S::f_set1(da[kC])), acc[kC]);
      });
      if constexpr (Tile::kHasMin) {
        constexpr int kPairs = 128 / Tile::kSubBlock;
        const S::F32 dmin = S::load_f16(tile + 32 + 2 * lane);
        const std::int32_t* pairs =
            (Tile::kSubBlock == 32 ? panel.pairs32 : panel.pairs16) + t * kPairs * kCols;
        unroll<kCols>([&]<int kC>() SPECDEC_INLINE { sum[kC] = S::zero(); });
        for (int p = 0; p < kPairs; ++p) {
          const S::I32 mins = Tile::template min_pair<S>(tile, p, lane);
          unroll<kCols>([&]<int kC>() SPECDEC_INLINE {
            sum[kC] = S::dot_pairs(sum[kC], mins, pairs + p * kCols + kC);
          });
        }
        unroll<kCols>([&]<int kC>() SPECDEC_INLINE {
          acc[kC] = S::f_fnma(S::to_f32(sum[kC]), S::f_mul(dmin, S::f_set1(da[kC])), acc[kC]);
        });
      }
    }
    unroll<kCols>([&]<int kC>()
                      SPECDEC_INLINE { S::f_store(out + kC * kTileRows + lane, acc[kC]); });
  }
}

struct TileF32 {
  static constexpr int kBytes = 4;
  SPECDEC_INLINE static Simd::F32 load(const std::uint8_t* p) { return Simd::load_f32(p); }
};
struct TileF16 {
  static constexpr int kBytes = 2;
  SPECDEC_INLINE static Simd::F32 load(const std::uint8_t* p) { return Simd::load_f16(p); }
};
struct TileBF16 {
  static constexpr int kBytes = 2;
  SPECDEC_INLINE static Simd::F32 load(const std::uint8_t* p) { return Simd::load_bf16(p); }
};

// Float formats: one fma per weight, k ascending.
template <class Tile, int kCols>
void tile_float(const std::uint8_t* tiles, const Panel& panel, float* out) {
  using S = Simd;
  constexpr int kStep = kTileRows * Tile::kBytes;
  for (int lane = 0; lane < kTileRows; lane += S::kLanes) {
    S::F32 acc[kCols];
    unroll<kCols>([&]<int kC>() SPECDEC_INLINE { acc[kC] = S::f_zero(); });
    const std::uint8_t* p = tiles + lane * Tile::kBytes;
    const float* x = panel.x;
    for (std::int64_t k = 0; k < panel.n_in; ++k, p += kStep, x += kCols) {
      if (k % (64 / kStep) == 0) S::prefetch(p + kPrefetchAhead);
      const S::F32 w = Tile::load(p);
      unroll<kCols>([&]<int kC>()
                        SPECDEC_INLINE { acc[kC] = S::f_fma(w, S::f_set1(x[kC]), acc[kC]); });
    }
    unroll<kCols>([&]<int kC>()
                      SPECDEC_INLINE { S::f_store(out + kC * kTileRows + lane, acc[kC]); });
  }
}

// --- activations ---

inline void quantize_float(const float* x, std::int64_t n_in, int col, const Panel& panel) {
  auto* out = const_cast<float*>(panel.x);
  for (std::int64_t k = 0; k < n_in; ++k) out[k * panel.n_cols + col] = x[k];
}

// Scale and codes of one block: d = amax / 127, codes nearest even. A NaN or infinity anywhere
// makes d NaN, so that it reaches the output instead of vanishing in an integer.
template <int kBlock>
inline float quantize_block(const float* x, std::int8_t* q, std::int64_t q_stride32) {
  F32x16 amax = F32x16::zero();
  F32x16 poison = F32x16::zero();
  for (int i = 0; i < kBlock; i += 16) {
    const F32x16 v = F32x16::load(x + i);
    amax = max(amax, abs(v));
    poison = fma(v, F32x16::zero(), poison);
  }
  float lanes[16];
  float bad[16];
  amax.store(lanes);
  poison.store(bad);
  float largest = 0;
  float nan = 0;
  for (int i = 0; i < 16; ++i) {
    largest = lanes[i] > largest ? lanes[i] : largest;
    nan += bad[i];
  }
  const float inverse = largest > 0 ? 127.0F / largest : 0.0F;
  const bool finite = nan == 0 && inverse <= 3.0e38F;
  const F32x16 scale = F32x16::set1(finite ? inverse : 0.0F);
  for (int i = 0; i < kBlock; i += 16) {
    std::int8_t* dst = q + i / 32 * q_stride32 + i % 32;
    store_i8(finite ? F32x16::load(x + i) * scale : F32x16::zero(), dst);
  }
  return finite ? largest / 127.0F : nan == 0 ? 0.0F : std::numeric_limits<float>::quiet_NaN();
}

inline std::int32_t sum_i8(const std::int8_t* q, int n) {
  std::int32_t sum = 0;
  for (int i = 0; i < n; ++i) sum += q[i];
  return sum;
}

inline void quantize_q32(const float* x, std::int64_t n_in, int col, const Panel& panel) {
  const std::int64_t n_cols = panel.n_cols;
  auto* q = const_cast<std::int8_t*>(panel.q);
  auto* d = const_cast<float*>(panel.d);
  auto* neg_sums = const_cast<std::int32_t*>(panel.neg_sums);
  auto* scaled_sums = const_cast<float*>(panel.scaled_sums);
  const std::int64_t n_padded = padded_n_in(PanelKind::kQ32, n_in) / 32;
  for (std::int64_t b = 0; b < n_padded; ++b) {
    const std::int64_t at = b * n_cols + col;
    std::int8_t* codes = q + at * 32;
    if (b * 32 >= n_in) {
      __builtin_memset(codes, 0, 32);
      d[at] = 0;
      neg_sums[at] = 0;
      scaled_sums[at] = 0;
      continue;
    }
    d[at] = quantize_block<32>(x + b * 32, codes, 32);
    const std::int32_t sum = sum_i8(codes, 32);
    neg_sums[at] = -sum;
    scaled_sums[at] = d[at] * static_cast<float>(sum);
  }
}

inline std::int32_t pair_of(std::int32_t low, std::int32_t high) {
  return static_cast<std::int32_t>((static_cast<std::uint32_t>(low) & 0xFFFFU) |
                                   static_cast<std::uint32_t>(high) << 16);
}

inline void quantize_q256(const float* x, std::int64_t n_in, int col, const Panel& panel) {
  const std::int64_t n_cols = panel.n_cols;
  auto* q = const_cast<std::int8_t*>(panel.q);
  auto* d = const_cast<float*>(panel.d);
  auto* neg_sums = const_cast<std::int32_t*>(panel.neg_sums);
  auto* pairs32 = const_cast<std::int32_t*>(panel.pairs32);
  auto* pairs16 = const_cast<std::int32_t*>(panel.pairs16);
  for (std::int64_t t = 0; t < n_in / 256; ++t) {
    std::int8_t* codes = q + (8 * t * n_cols + col) * 32;
    d[t * n_cols + col] = quantize_block<256>(x + t * 256, codes, 32 * n_cols);
    std::int32_t sums[16];
    for (int s = 0; s < 16; ++s) {
      sums[s] = sum_i8(codes + s / 2 * 32 * n_cols + s % 2 * 16, 16);
      neg_sums[(16 * t + s) * n_cols + col] = -sums[s];
    }
    for (int p = 0; p < 8; ++p) {
      pairs16[(8 * t + p) * n_cols + col] = pair_of(sums[2 * p], sums[2 * p + 1]);
    }
    for (int p = 0; p < 4; ++p) {
      pairs32[(4 * t + p) * n_cols + col] =
          pair_of(sums[4 * p] + sums[4 * p + 1], sums[4 * p + 2] + sums[4 * p + 3]);
    }
  }
}

// --- tables ---

// table.tile[dtype][c - 1] = kernel<tile, c> for every column count.
#define SPECDEC_FILL(table, dtype, KernelName, TileName)                              \
  [&]<int... kC>(std::integer_sequence<int, kC...>) {                                 \
    ((table.tile[static_cast<int>(dtype)][kC] = &KernelName<TileName, kC + 1>), ...); \
  }(std::make_integer_sequence<int, kMaxColumns>())

}  // namespace specdec::SPECDEC_ISA
