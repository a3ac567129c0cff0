// The matmul kernels, written once over Simd (int_*.h) and the formats' blocks. Included
// inside a target region with SPECDEC_KERNELS naming the namespace.
//
// Bits never depend on the number of columns, threads or the instruction set: integer block dots
// are exact, each lane is one output row, and a (row, column) pair always sees the same chain of
// float multiply-adds over k in ascending order.
#pragma once

namespace specdec::SPECDEC_KERNELS {

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
  if constexpr (kZeroShift < 0) {
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
              for_groups<kSums<kCols>>([&]<int kC0, int kN>() SPECDEC_INLINE {
                S::I32 dot[kN];
                unroll<kN>([&]<int kC>() SPECDEC_INLINE {
                  constexpr int kSum = kC0 + kC;
                  dot[kC] = sub_start<kZeroShift, kSubs, kCols, kSum>(neg_sums + s * kCols + kSum);
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

}  // namespace specdec::SPECDEC_KERNELS
