// Products of a tile row with 7 to 32 columns through registers that hold whole matrices (AMX): the
// 64-byte lines of our tiles are what such a register takes as its second operand. Written once
// over Registers, Simd and Fold; included inside a target region after them.
//
// The bits are those of matmul-inl.h: integer sums are exact however they are put together, and
// each pair of a row and a column sees the same multiply-adds over k in the same order.
//
// What is stored a moment ago cannot be loaded into a register without waiting, so three tiles are
// under way at once: one is decoded, the one before it multiplied, and the sums of the one before
// that are scaled. The order of these pieces was measured with a prototype (M columns of Q4_K in
// cache, ns per tile): 147 for 8, 214 for 16, 363 for 32, one after the other 350, 430, 620.
#pragma once

namespace specdec::SPECDEC_KERNELS {

inline constexpr int kWidePrefetchAhead = 4096;  // in bytes, as in matmul-inl.h

// What the registers of this thread are configured for; 0: nothing. They keep it until leave():
// configuring takes 200 cycles.
inline constinit thread_local int configured_for = 0;

// Registers 0 to 3 take sums, 4 and 5 activations, 6 and 7 weights. Of up to 16 columns the sums
// are in 0 and 2, of more the rest in 1 and 3.
template <class Registers>
SPECDEC_INLINE inline void configure(int n_cols, int depth) {
  const int wanted = n_cols * 128 + depth;
  if (configured_for == wanted) return;
  TileConfig config;
  const auto shape = [&](int r, int rows, int bytes) {
    config.rows[r] = static_cast<std::uint8_t>(rows);
    config.row_bytes[r] = static_cast<std::uint16_t>(bytes);
  };
  const int first = n_cols < kRegisterRows ? n_cols : kRegisterRows;
  const int rest = n_cols - first;
  shape(0, first, 64);
  shape(2, first, 64);
  if (rest > 0) {
    shape(1, rest, 64);
    shape(3, rest, 64);
  }
  shape(4, first, depth);
  shape(5, rest > 0 ? rest : first, depth);
  shape(6, depth / 4, 64);
  shape(7, depth / 4, 64);
  Registers::configure(config);
  configured_for = wanted;
}

// The system need not save what an idle thread has in its registers.
template <class Registers>
void leave() {
  if (configured_for == 0) return;
  Registers::release();
  configured_for = 0;
}

// Calls decode<piece>(tile), multiply<piece>(tile) and finish(tile) for all tiles, each a step
// behind the one before it.
template <int kPieces, class Decode, class Multiply, class Finish>
SPECDEC_INLINE inline void pipeline(std::int64_t n_tiles, Decode&& decode, Multiply&& multiply,
                                    Finish&& finish) {
  for (std::int64_t step = 0; step < n_tiles + 2; ++step) {
    unroll<kPieces>([&]<int kP>() SPECDEC_INLINE {
      if (step < n_tiles) decode.template operator()<kP>(step);
      if (step > 0 && step <= n_tiles) multiply.template operator()<kP>(step - 1);
    });
    if (step > 1) finish(step - 2);
  }
}

// What one tile leaves for its next step. Processors compare the last 12 bits of addresses to tell
// whether a load has to wait for a store, so the two tiles in work must not lie 4096 bytes apart.
template <int kPieces, int kPerPiece, int kBytes, int kHalves, int kSums>
struct alignas(64) Stage {
  static constexpr int kUsed = kPieces * kPerPiece * kBytes + kSums * kHalves * kRegisterBytes;
  std::uint8_t weights[kPieces][kPerPiece][kBytes];
  std::int32_t sums[kSums][kHalves * 256];
  std::uint8_t apart[kUsed % 4096 == 0 ? 2048 : 64];
};

template <class Block>
inline constexpr int kZero = Block::kCodes.zero_shift < 0 ? 0 : 1 << Block::kCodes.zero_shift;

template <class Block>
inline constexpr Planes kPlanes = [] {
  switch (Block::kCodes.scales) {
    case ScaleKind::kPairs32:  // scales of 6 bits
      static_assert(Block::kCodes.scales != ScaleKind::kPairs32 ||
                    (kMaxWeight<Block> * 7 <= 255 && Block::kCodes.zero_shift < 0));
      return Planes::kSplit;
    case ScaleKind::kPairs16:  // of 4
      static_assert(Block::kCodes.scales != ScaleKind::kPairs16 ||
                    (kMaxWeight<Block> * 15 <= 255 && Block::kCodes.zero_shift < 0));
      return Planes::kSingle;
    default:
      // -32 .. 31 times -4 .. 3.
      return std::is_same_v<Block, BlockQ3_K> ? Planes::kNegated : Planes::kWords;
  }
}();
template <class Block>
inline constexpr int kPlaneCount =
    kPlanes<Block> == Planes::kSplit || kPlanes<Block> == Planes::kWords ? 2 : 1;

// A column's integers over 256 k from those of the planes.
template <class Block>
SPECDEC_INLINE inline Simd::I32 sum_of(const std::int32_t* first, const std::int32_t* second) {
  const Simd::I32 sum = Fold::load_sums(first);
  if constexpr (kPlanes<Block> == Planes::kSplit)
    return Simd::add(sum, Simd::shift_left<3>(Fold::load_sums(second)));
  if constexpr (kPlanes<Block> == Planes::kWords)
    return Simd::add(sum, Simd::shift_left<8>(Fold::load_sums(second)));
  if constexpr (kPlanes<Block> == Planes::kNegated) return Fold::negate(sum);
  return sum;
}

// Weights of 64 k of a block of 256 with their scales: in each plane 16 lines.
template <class Block>
SPECDEC_INLINE inline void decode_scaled(const std::uint8_t* tile, int piece,
                                         std::uint8_t (*planes)[kRegisterBytes]) {
  using S = Simd;
  using Shape = TileShape<Block>;
  constexpr int kSubs = 32 / Block::kCodes.sub_block();  // sub-blocks per 32
  constexpr int kVectors = 8 / kSubs;
  constexpr int kAheadStep = (Shape::kTileBytes / 8 + 63) / 64 * 64;
  unroll<2>([&]<int kB>() SPECDEC_INLINE {
    const int block = 2 * piece + kB;
    const std::uint8_t* ahead = tile + kWidePrefetchAhead + block * kAheadStep;
    for (int i = 0; i < kAheadStep; i += 64) S::prefetch(ahead + i);
    typename S::Bytes w[8];
    decode_codes<S, Block>(tile + Shape::kHeaderBytes + block * Shape::kBlockBytes, 0, w);
    unroll<kSubs>([&]<int kSub>() SPECDEC_INLINE {
      constexpr int kAt = 512 * kB + 64 * kVectors * kSub;
      Fold::template put<kPlanes<Block>, kZero<Block>, kVectors>(
          w + kVectors * kSub, load_sub_scale<S, Block>(tile, block * kSubs + kSub, 0),
          planes[0] + kAt, planes[kPlaneCount<Block> - 1] + kAt);
    });
  });
}

// acc = acc + (d_w d_a) * sum - (dmin_w d_a) * min_sum of tile t, for all columns.
template <class Block, int kHalves>
SPECDEC_INLINE inline void finish_scaled(const std::uint8_t* tile, const PackedInput& input,
                                         std::int64_t t, const std::int32_t (*sums)[kHalves * 256],
                                         float* out) {
  using S = Simd;
  constexpr int kPairs = 128 / Block::kCodes.sub_block();  // of sub-blocks
  const int n_cols = input.n_cols;
  const float* da = input.d + t * n_cols;
  const auto d = load_scale<S, Block>(tile);
  for (int c = 0; c < n_cols; ++c) {
    const auto sum = sum_of<Block>(sums[0] + 16 * c, sums[kPlaneCount<Block> - 1] + 16 * c);
    float* acc = out + 16 * c;
    S::f_store(acc, S::f_fma(S::to_f32(sum), S::f_mul(d, S::f_set1(da[c])), S::f_load(acc)));
  }
  if constexpr (kHasMin<Block>) {
    const std::int32_t* all_pairs = kPairs == 4 ? input.pairs32 : input.pairs16;
    const std::int32_t* pairs = all_pairs + t * kPairs * n_cols;
    const auto dmin = S::load_f16(tile + 32);
    typename S::I32 mins[kPairs];
    unroll<kPairs>([&]<int kP>()
                       SPECDEC_INLINE { mins[kP] = load_min_pair<S, Block>(tile, kP, 0); });
    for (int c = 0; c < n_cols; ++c) {
      typename S::I32 sum = S::zero();
      unroll<kPairs>([&]<int kP>() SPECDEC_INLINE {
        sum = S::dot_pairs(sum, mins[kP], pairs + kP * n_cols + c);
      });
      float* acc = out + 16 * c;
      S::f_store(acc, S::f_fnma(S::to_f32(sum), S::f_mul(dmin, S::f_set1(da[c])), S::f_load(acc)));
    }
  }
}

// K-quants; kHalves: of columns, in 16.
template <class Registers, class Block, int kHalves>
void wide_q256(const std::uint8_t* tiles, const PackedInput& input, float* out) {
  constexpr int kTileBytes = TileShape<Block>::kTileBytes;
  constexpr int kN = kPlaneCount<Block>;
  constexpr bool kSigned = kPlanes<Block> == Planes::kNegated;
  Stage<4, kN, kRegisterBytes, kHalves, kN> stages[2];
  configure<Registers>(input.n_cols, 64);
  for (int i = 0; i < input.n_cols * kTileRows; ++i) out[i] = 0;
  pipeline<4>(
      input.n_in / 256,
      [&]<int kP>(std::int64_t t) SPECDEC_INLINE {
        decode_scaled<Block>(tiles + t * kTileBytes, kP, stages[t % 2].weights[kP]);
      },
      [&]<int kP>(std::int64_t t) SPECDEC_INLINE {
        const std::int8_t* a = input.q + (4 * t + kP) * 64 * input.n_cols;
        unroll<kHalves>([&]<int kH>() SPECDEC_INLINE {
          Registers::template load<4 + kH>(a + kH * kRegisterBytes, 64);
        });
        unroll<kN>([&]<int kI>() SPECDEC_INLINE {
          Registers::template load<6 + kI>(stages[t % 2].weights[kP][kI], 64);
          unroll<kHalves>([&]<int kH>() SPECDEC_INLINE {
            constexpr int kSum = 2 * kI + kH;
            if constexpr (kP == 0) Registers::template zero<kSum>();
            if constexpr (kSigned || (kI == 1 && kPlanes<Block> == Planes::kWords)) {
              Registers::template dot_ss<kSum, 4 + kH, 6 + kI>();
            } else {
              Registers::template dot_su<kSum, 4 + kH, 6 + kI>();
            }
            if constexpr (kP == 3)
              Registers::template store<kSum>(stages[t % 2].sums[kI] + 256 * kH, 64);
          });
        });
      },
      [&](std::int64_t t) SPECDEC_INLINE {
        finish_scaled<Block, kHalves>(tiles + t * kTileBytes, input, t, stages[t % 2].sums, out);
      });
}

// acc += d_w * d_a * dot (+ m_w * d_a * sum_a) of the two blocks of tile t, for all columns.
template <class Block, int kHalves>
SPECDEC_INLINE inline void finish_blocks(const std::uint8_t* tile, const PackedInput& input,
                                         std::int64_t t, const std::int32_t (*sums)[kHalves * 256],
                                         float* out) {
  using S = Simd;
  const int n_cols = input.n_cols;
  unroll<2>([&]<int kB>() SPECDEC_INLINE {
    const std::int64_t at = (2 * t + kB) * n_cols;
    const auto d = load_scale<S, Block>(tile + 32 * kB);
    [[maybe_unused]] typename S::F32 m = S::f_zero();
    if constexpr (kHasMin<Block>) m = S::load_f16(tile + 64 + 32 * kB);
    for (int c = 0; c < n_cols; ++c) {
      const auto dot = S::to_f32(Fold::load_sums(sums[kB] + 16 * c));
      auto acc = S::f_load(out + 16 * c);
      acc = S::f_fma(dot, S::f_mul(d, S::f_set1(input.d[at + c])), acc);
      if constexpr (kHasMin<Block>) acc = S::f_fma(m, S::f_set1(input.scaled_sums[at + c]), acc);
      S::f_store(out + 16 * c, acc);
    }
  });
}

// Formats with blocks of 32, whose scales are floats: a register of sums for each block.
template <class Registers, class Block, int kHalves>
void wide_q32(const std::uint8_t* tiles, const PackedInput& input, float* out) {
  using S = Simd;
  using Shape = TileShape<Block>;
  constexpr int kAheadStep = (Shape::kTileBytes / 2 + 63) / 64 * 64;
  Stage<2, 1, kRegisterBytes / 2, kHalves, 2> stages[2];
  configure<Registers>(input.n_cols, 32);
  for (int i = 0; i < input.n_cols * kTileRows; ++i) out[i] = 0;
  pipeline<2>((input.n_in + 63) / 64,
              [&]<int kP>(std::int64_t t) SPECDEC_INLINE {
                const std::uint8_t* tile = tiles + t * Shape::kTileBytes;
                const std::uint8_t* ahead = tile + kWidePrefetchAhead + kP * kAheadStep;
                for (int i = 0; i < kAheadStep; i += 64) S::prefetch(ahead + i);
                typename S::Bytes w[8];
                decode_codes<S, Block>(tile + Shape::kHeaderBytes + kP * Shape::kBlockBytes, 0, w);
                unroll<8>([&]<int kV>() SPECDEC_INLINE {
                  Fold::template put_codes<kZero<Block>>(w[kV],
                                                         stages[t % 2].weights[kP][0] + 64 * kV);
                });
              },
              [&]<int kP>(std::int64_t t) SPECDEC_INLINE {
                const std::int8_t* a = input.q + t * 64 * input.n_cols + 32 * kP;
                Registers::template load<6 + kP>(stages[t % 2].weights[kP][0], 64);
                unroll<kHalves>([&]<int kH>() SPECDEC_INLINE {
                  constexpr int kSum = 2 * kP + kH;
                  Registers::template load<4 + kH>(a + kH * kRegisterBytes, 64);
                  Registers::template zero<kSum>();
                  Registers::template dot_ss<kSum, 4 + kH, 6 + kP>();
                  Registers::template store<kSum>(stages[t % 2].sums[kP] + 256 * kH, 64);
                });
              },
              [&](std::int64_t t) SPECDEC_INLINE {
                finish_blocks<Block, kHalves>(tiles + t * Shape::kTileBytes, input, t,
                                              stages[t % 2].sums, out);
              });
}

template <class Registers, class Block>
void wide_tile(const std::uint8_t* tiles, const PackedInput& input, float* out) {
  if constexpr (TileShape<Block>::kSuper) {
    if (input.n_cols <= kRegisterRows) return wide_q256<Registers, Block, 1>(tiles, input, out);
    wide_q256<Registers, Block, 2>(tiles, input, out);
  } else {
    if (input.n_cols <= kRegisterRows) return wide_q32<Registers, Block, 1>(tiles, input, out);
    wide_q32<Registers, Block, 2>(tiles, input, out);
  }
}

// Of all formats of blocks.
template <class Registers>
constexpr WideKernels wide_kernels() {
  WideKernels table{};
#define SPECDEC_BLOCK(name, ...) \
  table.tile[dtype_index(DType::k##name)] = &wide_tile<Registers, Block##name>;
#include "tensor/formats.def"
  table.leave = &leave<Registers>;
  return table;
}

}  // namespace specdec::SPECDEC_KERNELS
