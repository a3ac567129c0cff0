// The matmul kernels, written once over Simd (int_*.h) and the formats' blocks. Included
// inside a target region with SPECDEC_KERNELS naming the namespace.
//
// Bits never depend on the number of columns, threads or the instruction set: integer block dots
// are exact, each lane is one output row, and a (row, column) pair always sees the same chain of
// float multiply-adds over k in ascending order.
#pragma once

namespace specdec::SPECDEC_KERNELS {

// Columns that share one pass over the decoded registers: enough chains to hide the dot latency.
inline constexpr int kGroup = 4;
// How far ahead of the stream of tiles to prefetch, in bytes.
inline constexpr int kPrefetchAhead = 4096;
// Register halves, quarters, ... that make up the rows of a tile.
inline constexpr int kParts = kTileRows / Simd::kLanes;

template <int kBytes>
SPECDEC_INLINE inline void prefetch_lines(const std::uint8_t* p) {
  for (int i = 0; i < kBytes; i += 64) Simd::prefetch(p + i);
}

// Calls f<first, n>() for groups of at most kSize of kCols columns, all known at compile time.
template <int kCols, int kSize = kGroup, int kFirst = 0, class F>
SPECDEC_INLINE inline void for_groups(F&& f) {
  constexpr int kN = kCols - kFirst < kSize ? kCols - kFirst : kSize;
  f.template operator()<kFirst, kN>();
  if constexpr (kFirst + kN < kCols) for_groups<kCols, kSize, kFirst + kN>(f);
}

// Runs body<part>(first tile, end tile, acc) over a tile row, where acc are the sums of kCols
// columns for the rows of one part. Several parts take turns every kRun tiles, so that the weights
// are read from memory once; meanwhile their sums wait in out.
template <int kCols, int kRun, class Body>
SPECDEC_INLINE inline void for_parts(std::int64_t n_tiles, float* out, Body&& body) {
  using S = Simd;
  const std::int64_t run = kParts == 1 ? n_tiles : kRun;
  for (std::int64_t first = 0; first < n_tiles; first += run) {
    const std::int64_t end = first + run < n_tiles ? first + run : n_tiles;
    for (int part = 0; part < kParts; ++part) {
      float* sums = out + part * S::kLanes;
      S::F32 acc[kSums<kCols>];
      unroll<kSums<kCols>>([&]<int kC>() SPECDEC_INLINE {
        acc[kC] = kParts == 1 || first == 0 ? S::f_zero() : load_sum<kCols, kC>(sums);
      });
      body(part, first, end, acc);
      store_sums<kCols>(acc, sums);
    }
  }
}

// Whether a set that multiplies signed bytes takes codes without their offset. That costs nothing
// with a table, an inversion or 8 subtractions for each 32 k, and saves what starts each dot of
// each column: a load and a shift.
template <class S, class Block, int kCols>
inline constexpr bool kSigned = [] {
  constexpr Codes kCodes = Block::kCodes;
  if constexpr (!requires { S::kSignedCodes; }) return false;
  if (kCodes.zero_shift < 0) return false;
  const int n_starts = kCodes.scales == ScaleKind::kBlock ? 1 : 2;
  const int cost = kCodes.by_value ? 0 : kOffsetIsTopBit<Block> ? 1 : 8;
  return 2 * n_starts * kCols > cost;
}();
template <class S, class Block, int kCols>
inline constexpr int kWeights = kSigned<S, Block, kCols> ? kSignedWeights : kMaxWeight<Block>;

// Start of a dot: minus the codes' offset times the activations, so that the offset costs nothing.
template <int kZeroShift, int kCols, int kSum>
SPECDEC_INLINE inline Simd::I32 dot_start(const std::int32_t* neg_sum) {
  if constexpr (kZeroShift < 0 || (kZeroShift == 7 && Simd::kCentresBytes)) {
    return Simd::zero();
  } else {
    return Simd::shift_left<kZeroShift>(of_columns<kCols, kSum>(neg_sum));
  }
}
// The same of a sub-block of a K-quant, one of kSubs in 32 k; sums are of 16.
template <int kZeroShift, int kSubs, int kCols, int kSum>
SPECDEC_INLINE inline Simd::I32 sub_start(const std::int32_t* neg_sum) {
  const Simd::I32 start = dot_start<kZeroShift, kCols, kSum>(neg_sum);
  if constexpr (kZeroShift < 0 || kSubs == 2) return start;
  return Simd::add(start, dot_start<kZeroShift, kCols, kSum>(neg_sum + kCols));
}

// Formats with blocks of 32: acc += d_w * d_a * dot (+ m_w * d_a * sum_a), block after block.
template <class Block, int kCols>
void tile_q32(const std::uint8_t* tiles, const PackedInput& input, float* out) {
  using S = Simd;
  using Shape = TileShape<Block>;
  constexpr int kTileBytes = Shape::kTileBytes;
  constexpr int kAheadStep = (kTileBytes / 2 / kParts + 63) / 64 * 64;
  constexpr int kZeroShift = kSigned<S, Block, kCols> ? -1 : Block::kCodes.zero_shift;
  const std::int64_t n_tiles = (input.n_in + 63) / 64;
  for_parts<kCols, 8>(
      n_tiles, out,
      [&](int part, std::int64_t first, std::int64_t end, S::F32* acc) SPECDEC_INLINE {
        const int lane = part * S::kLanes;
        for (std::int64_t t = first; t < end; ++t) {
          const std::uint8_t* tile = tiles + t * kTileBytes;
          const std::uint8_t* ahead = tile + kPrefetchAhead;
          for (int b = 0; b < 2; ++b) {
            const std::int64_t block = 2 * t + b;
            prefetch_lines<kAheadStep>(ahead + (2 * part + b) * kAheadStep);
            S::Bytes w[8];
            decode_codes<S, Block, kSigned<S, Block, kCols>>(
                tile + Shape::kHeaderBytes + b * Shape::kBlockBytes, lane, w);
            const S::F32 d = load_scale<S, Block>(tile + 32 * b + 2 * lane);
            const std::int8_t* a = input.q + block * kInputBytes<kCols>;
            const float* da = input.d + block * kCols;
            const std::int32_t* neg_sums = input.neg_sums + block * kCols;
            for_groups<kSums<kCols>>([&]<int kC0, int kN>() SPECDEC_INLINE {
              S::I32 dot[kN];
              unroll<kN>([&]<int kC>() SPECDEC_INLINE {
                dot[kC] = dot_start<kZeroShift, kCols, kC0 + kC>(neg_sums + kC0 + kC);
              });
              S::template dot<kWeights<S, Block, kCols>, 8, kN>(w, a + 32 * kC0, dot);
              unroll<kN>([&]<int kC>() SPECDEC_INLINE {
                constexpr int kSum = kC0 + kC;
                acc[kSum] =
                    S::f_fma(S::to_f32(dot[kC]),
                             S::f_mul(of_rows<kCols, kSum>(d), of_columns<kCols, kSum>(da + kSum)),
                             acc[kSum]);
              });
            });
            if constexpr (kHasMin<Block>) {
              const S::F32 m = S::load_f16(tile + 64 + 32 * b + 2 * lane);
              const float* sums = input.scaled_sums + block * kCols;
              unroll<kSums<kCols>>([&]<int kC>() SPECDEC_INLINE {
                acc[kC] =
                    S::f_fma(of_rows<kCols, kC>(m), of_columns<kCols, kC>(sums + kC), acc[kC]);
              });
            }
          }
        }
      });
}

// Instruction sets whose scales multiply sums of 16 bits take the codes' offset off 256 k at once.
template <class S, class Block, int kCols>
SPECDEC_INLINE inline void start_scaled(const std::uint8_t* tile, int lane,
                                        const std::int32_t* pairs, typename S::I32* sum) {
  for (int p = 0; p < 128 / Block::kCodes.sub_block(); ++p) {
    const auto scales = S::pair16(load_sub_scale<S, Block>(tile, 2 * p, lane),
                                  load_sub_scale<S, Block>(tile, 2 * p + 1, lane));
    unroll<kCols>([&]<int kC>() SPECDEC_INLINE {
      sum[kC] = S::dot_pairs(sum[kC], scales, pairs + p * kCols + kC);
    });
  }
  unroll<kCols>([&]<int kC>() SPECDEC_INLINE {
    sum[kC] = S::negate(S::template shift_left<Block::kCodes.zero_shift>(sum[kC]));
  });
}
template <class S, int kMaxWeight, int kVectors, int kCols>
SPECDEC_INLINE inline void add_scaled(const typename S::Bytes* w, const std::int8_t* a,
                                      typename S::I32 scale, typename S::I32* sum) {
  S::template scaled_dot<kMaxWeight, kVectors, kCols>(w, a, S::pair16(scale, scale), sum);
}

// K-quants: integers over 256 k, then acc += (d_w d_a) * sum, acc -= (dmin_w d_a) * min_sum.
template <class Block, int kCols>
void tile_q256(const std::uint8_t* tiles, const PackedInput& input, float* out) {
  using S = Simd;
  using Shape = TileShape<Block>;
  constexpr int kTileBytes = Shape::kTileBytes;
  constexpr int kAheadStep = (kTileBytes / 8 / kParts + 63) / 64 * 64;
  constexpr int kSubBlock = Block::kCodes.sub_block();
  constexpr int kVectors = kSubBlock / 4;  // per sub-block
  constexpr int kSubs = 32 / kSubBlock;    // sub-blocks per 32
  constexpr int kZeroShift = kSigned<S, Block, kCols> ? -1 : Block::kCodes.zero_shift;
  constexpr int kPairs = 128 / kSubBlock;  // of sub-blocks
  constexpr bool kScaled = S::kScalesPairs && kMaxWeight<Block> <= 127;
  const std::int32_t* all_pairs = kSubBlock == 32 ? input.pairs32 : input.pairs16;
  const std::int64_t n_tiles = input.n_in / 256;
  for_parts<kCols, 1>(
      n_tiles, out,
      [&](int part, std::int64_t first, std::int64_t end, S::F32* acc) SPECDEC_INLINE {
        const int lane = part * S::kLanes;
        for (std::int64_t t = first; t < end; ++t) {
          const std::uint8_t* tile = tiles + t * kTileBytes;
          S::I32 sum[kSums<kCols>];
          unroll<kSums<kCols>>([&]<int kC>() SPECDEC_INLINE { sum[kC] = S::zero(); });
          [[maybe_unused]] const std::int32_t* pairs = all_pairs + t * kPairs * kCols;
          if constexpr (kScaled && kZeroShift >= 0)
            start_scaled<S, Block, kCols>(tile, lane, pairs, sum);
          for (int b = 0; b < 8; ++b) {
            const std::int64_t block = 8 * t + b;
            prefetch_lines<kAheadStep>(tile + kPrefetchAhead + (8 * part + b) * kAheadStep);
            S::Bytes w[8];
            decode_codes<S, Block, kSigned<S, Block, kCols>>(
                tile + Shape::kHeaderBytes + b * Shape::kBlockBytes, lane, w);
            const std::int8_t* a = input.q + block * kInputBytes<kCols>;
            const std::int32_t* neg_sums = input.neg_sums + 2 * block * kCols;  // per 16
            for (int s = 0; s < kSubs; ++s) {
              const S::I32 scale = load_sub_scale<S, Block>(tile, b * kSubs + s, lane);
              if constexpr (kScaled) {
                add_scaled<S, kMaxWeight<Block>, kVectors, kCols>(w + s * kVectors,
                                                                  a + 4 * s * kVectors, scale, sum);
              } else {
                for_groups<kSums<kCols>>([&]<int kC0, int kN>() SPECDEC_INLINE {
                  S::I32 dot[kN];
                  unroll<kN>([&]<int kC>() SPECDEC_INLINE {
                    constexpr int kSum = kC0 + kC;
                    dot[kC] =
                        sub_start<kZeroShift, kSubs, kCols, kSum>(neg_sums + s * kCols + kSum);
                  });
                  S::template dot<kWeights<S, Block, kCols>, kVectors, kN>(
                      w + s * kVectors, a + 32 * kC0 + 4 * kInputStep * s * kVectors, dot);
                  unroll<kN>([&]<int kC>() SPECDEC_INLINE {
                    constexpr int kSum = kC0 + kC;
                    sum[kSum] = S::add(sum[kSum], S::mul(of_rows<kCols, kSum>(scale), dot[kC]));
                  });
                });
              }
            }
          }
          const S::F32 d = load_scale<S, Block>(tile + 2 * lane);
          const float* da = input.d + t * kCols;
          unroll<kSums<kCols>>([&]<int kC>() SPECDEC_INLINE {
            acc[kC] =
                S::f_fma(S::to_f32(sum[kC]),
                         S::f_mul(of_rows<kCols, kC>(d), of_columns<kCols, kC>(da + kC)), acc[kC]);
          });
          if constexpr (kHasMin<Block>) {
            const S::F32 dmin = S::load_f16(tile + 32 + 2 * lane);
            unroll<kSums<kCols>>([&]<int kC>() SPECDEC_INLINE { sum[kC] = S::zero(); });
            for (int p = 0; p < kPairs; ++p) {
              const S::I32 mins = load_min_pair<S, Block>(tile, p, lane);
              unroll<kSums<kCols>>([&]<int kC>() SPECDEC_INLINE {
                sum[kC] = dot_pairs_of<kCols, kC>(sum[kC], mins, pairs + p * kCols + kC);
              });
            }
            unroll<kSums<kCols>>([&]<int kC>() SPECDEC_INLINE {
              acc[kC] = S::f_fnma(
                  S::to_f32(sum[kC]),
                  S::f_mul(of_rows<kCols, kC>(dmin), of_columns<kCols, kC>(da + kC)), acc[kC]);
            });
          }
        }
      });
}

struct FloatF32 {
  static constexpr int kBytes = 4;
  SPECDEC_INLINE static Simd::F32 load(const std::uint8_t* p) { return Simd::load_f32(p); }
};
struct FloatF16 {
  static constexpr int kBytes = 2;
  SPECDEC_INLINE static Simd::F32 load(const std::uint8_t* p) { return Simd::load_f16(p); }
};
struct FloatBF16 {
  static constexpr int kBytes = 2;
  SPECDEC_INLINE static Simd::F32 load(const std::uint8_t* p) { return Simd::load_bf16(p); }
};

// Columns of a float kernel whose sums (two chains of kParts vectors each) fit the registers.
inline constexpr int kFloatColumns = kParts == 1 ? 8 : 3;

// Adds kUnit or fewer k to the two chains of columns kFirst .. kFirst + kN - 1.
template <class Tile, int kCols, int kFirst, int kN>
SPECDEC_INLINE inline void add_floats(const std::uint8_t* w, const float* x, std::int64_t n,
                                      float* out, float* odd) {
  using S = Simd;
  constexpr int kStep = kTileRows * Tile::kBytes;
  S::F32 acc[2][kN][kParts];
  const auto at = [](int column, int part)
                      SPECDEC_INLINE { return (kFirst + column) * kTileRows + part * S::kLanes; };
  unroll<kN * kParts>([&]<int kI>() SPECDEC_INLINE {
    acc[0][kI / kParts][kI % kParts] = S::f_load(out + at(kI / kParts, kI % kParts));
    acc[1][kI / kParts][kI % kParts] = S::f_load(odd + at(kI / kParts, kI % kParts));
  });
  const auto step = [&]<int kChain>(std::int64_t k) SPECDEC_INLINE {
    if constexpr (kFirst == 0 && (kStep == 64 || kChain == 0))
      S::prefetch(w + kPrefetchAhead + k * kStep);
    S::F32 rows[kParts];
    unroll<kParts>([&]<int kP>() SPECDEC_INLINE {
      rows[kP] = Tile::load(w + k * kStep + kP * S::kLanes * Tile::kBytes);
    });
    unroll<kN>([&]<int kC>() SPECDEC_INLINE {
      const S::F32 factor = S::f_set1(x[k * kCols + kFirst + kC]);
      unroll<kParts>([&]<int kP>() SPECDEC_INLINE {
        acc[kChain][kC][kP] = S::f_fma(rows[kP], factor, acc[kChain][kC][kP]);
      });
    });
  };
  std::int64_t k = 0;
  for (; k + 1 < n; k += 2) {
    step.template operator()<0>(k);
    step.template operator()<1>(k + 1);
  }
  if (k < n) step.template operator()<0>(k);
  unroll<kN * kParts>([&]<int kI>() SPECDEC_INLINE {
    S::f_store(out + at(kI / kParts, kI % kParts), acc[0][kI / kParts][kI % kParts]);
    S::f_store(odd + at(kI / kParts, kI % kParts), acc[1][kI / kParts][kI % kParts]);
  });
}

// Float formats: one fma per weight, in two chains (even and odd k) that are added at the end, so
// that a single column does not wait for the latency of every fma.
template <class Tile, int kCols>
void tile_float(const std::uint8_t* tiles, const PackedInput& input, float* out) {
  using S = Simd;
  constexpr int kStep = kTileRows * Tile::kBytes;
  constexpr int kUnit = 128;  // k that stay in the first cache while groups of columns take turns
  const std::int64_t n_units = (input.n_in + kUnit - 1) / kUnit;
  alignas(64) float odd[kCols * kTileRows] = {};
  for (int i = 0; i < kCols * kTileRows; ++i) out[i] = 0;
  for (std::int64_t t = 0; t < n_units; ++t) {
    const std::uint8_t* unit = tiles + t * kUnit * kStep;
    const float* x = input.x + t * kUnit * kCols;
    const std::int64_t n = input.n_in - t * kUnit < kUnit ? input.n_in - t * kUnit : kUnit;
    for_groups<kCols, kFloatColumns>([&]<int kFirst, int kN>() SPECDEC_INLINE {
      add_floats<Tile, kCols, kFirst, kN>(unit, x, n, out, odd);
    });
  }
  for (int i = 0; i < kCols * kTileRows; i += S::kLanes)
    S::f_store(out + i, S::f_add(S::f_load(out + i), S::f_load(odd + i)));
}

// Sets the kernels of one format for every number of columns.
#define SPECDEC_FILL(table, dtype, kernel, Format)                         \
  [&]<int... kC>(std::integer_sequence<int, kC...>) {                      \
    ((table.tile[dtype_index(dtype)][kC] = &kernel<Format, kC + 1>), ...); \
  }(std::make_integer_sequence<int, kMaxColumns>())

}  // namespace specdec::SPECDEC_KERNELS
