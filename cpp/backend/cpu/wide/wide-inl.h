// Products of a tile row with up to kMaxWideColumns columns through registers that hold
// whole matrices (AMX): the 64-byte lines of our tiles are what such a register takes as its second
// operand. Written once over Registers, Simd and Fold; included inside a target region after them.
//
// The bits are those of matmul-inl.h: integer sums are exact however they are put together, and
// each pair of a row and a column sees the same multiply-adds over k in the same order.
//
// Weights are decoded two pieces of 64 k ahead of their products, because what is stored a moment
// ago cannot be loaded into a register without waiting; sums are scaled a quarter of the columns at
// a time beside the products of what comes next. All that is under way shares the first cache with
// the activations, which stream through it: a whole tile ahead cost a fifth (of the time of 16 or
// 32 columns) by that alone. While these registers multiply, other multiplications have one port
// instead of two (measured: 32 vpmullw or vpdpwssd in 32 cycles, additions in 16).
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

// How far decoding is ahead, in pieces of weights that are multiplied at a time.
inline constexpr int kPiecesAhead = 2;

// Calls for all tiles, in their order: decode<part>(tile) for all parts, of which a tile has
// kPieces * kPasses; multiply<piece, pass>(tile), the last piece of which leaves a pass's sums; and
// finish<quarter, pass>(tile), as many quarters as pieces, which takes them.
template <int kPieces, int kPasses, class Decode, class Multiply, class Finish>
SPECDEC_INLINE inline void pipeline(std::int64_t n_tiles, Decode&& decode, Multiply&& multiply,
                                    Finish&& finish) {
  constexpr int kSlots = kPieces * kPasses;
  constexpr int kAhead = kPasses == 1 ? kPiecesAhead : kPieces + kPiecesAhead;
  unroll<kAhead>([&]<int kPart>() SPECDEC_INLINE {
    if (kPart / kSlots < n_tiles) decode.template operator()<kPart % kSlots>(kPart / kSlots);
  });
  for (std::int64_t t = 0; t < n_tiles; ++t) {
    unroll<kSlots>([&]<int kSlot>() SPECDEC_INLINE {
      constexpr int kPart = kSlot + kAhead;
      constexpr int kPiece = kSlot % kPieces;
      constexpr int kPass = kSlot / kPieces;
      constexpr int kBefore = (kPass + kPasses - 1) % kPasses;  // whose sums wait
      constexpr bool kLast = kPiece == kPieces - 1;             // puts others in their place
      const std::int64_t before = kPass > 0 ? t : t - 1;
      if (t + kPart / kSlots < n_tiles)
        decode.template operator()<kPart % kSlots>(t + kPart / kSlots);
      if (kLast && before >= 0) finish.template operator()<kPiece, kBefore>(before);
      multiply.template operator()<kPiece, kPass>(t);
      if (!kLast && before >= 0) finish.template operator()<kPiece, kBefore>(before);
    });
  }
  unroll<kPieces>([&]<int kPiece>() SPECDEC_INLINE {
    finish.template operator()<kPiece, kPasses - 1>(n_tiles - 1);
  });
}

// Columns of a kernel, in one pass or in two of the same size; of an odd number the one in the
// middle is in both.
template <int kPasses>
struct Passes {
  int n_cols, size;
  explicit Passes(int n) : n_cols(n), size((n + kPasses - 1) / kPasses) {}
  [[nodiscard]] int first(int pass) const { return pass * (n_cols - size); }
  // Start of one of n parts of a pass, without what the pass before has finished.
  [[nodiscard]] int part(int pass, int i, int n) const {
    const int at = first(pass) + size * i / n;
    return at < pass * size ? pass * size : at;
  }
};

// What is on the way from step to step.
template <int kPieces, int kPlanes, int kBytes, int kHalves, int kSums>
struct alignas(64) Stage {
  std::uint8_t weights[kPieces][kPlanes][kBytes];
  std::int32_t sums[kSums][kHalves * 256];
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

// Weights of block `block` of 32 of a block of 256 with their scales: in each plane 8 lines.
template <class Block>
SPECDEC_INLINE inline void decode_scaled(const std::uint8_t* tile, int block, std::uint8_t* low,
                                         std::uint8_t* high) {
  using S = Simd;
  using Shape = TileShape<Block>;
  constexpr int kSubs = 32 / Block::kCodes.sub_block();  // sub-blocks per 32
  constexpr int kVectors = 8 / kSubs;
  constexpr int kAheadStep = (Shape::kTileBytes / 8 + 63) / 64 * 64;
  const std::uint8_t* ahead = tile + kWidePrefetchAhead + block * kAheadStep;
  for (int i = 0; i < kAheadStep; i += 64) S::prefetch(ahead + i);
  typename S::Bytes w[8];
  decode_codes<S, Block>(tile + Shape::kHeaderBytes + block * Shape::kBlockBytes, 0, w);
  unroll<kSubs>([&]<int kSub>() SPECDEC_INLINE {
    constexpr int kAt = 64 * kVectors * kSub;
    Fold::template put<kPlanes<Block>, kZero<Block>, kVectors>(
        w + kVectors * kSub, load_sub_scale<S, Block>(tile, block * kSubs + kSub, 0), low + kAt,
        high + kAt);
  });
}

// acc = acc + (d_w d_a) * sum - (dmin_w d_a) * min_sum of tile t, for columns first .. end - 1;
// sums are those of column `origin` and later ones.
template <class Block, int kHalves>
SPECDEC_INLINE inline void finish_scaled(const std::uint8_t* tile, const PackedInput& input,
                                         std::int64_t t, const std::int32_t (*sums)[kHalves * 256],
                                         int origin, int first, int end, float* out) {
  using S = Simd;
  constexpr int kPairs = 128 / Block::kCodes.sub_block();  // of sub-blocks
  const int n_cols = input.n_cols;
  const float* da = input.d + t * n_cols;
  const auto d = load_scale<S, Block>(tile);
  const std::int32_t* all_pairs = kPairs == 4 ? input.pairs32 : input.pairs16;
  [[maybe_unused]] const std::int32_t* pairs = all_pairs + t * kPairs * n_cols;
  [[maybe_unused]] typename S::F32 dmin = S::f_zero();
  [[maybe_unused]] typename S::I32 mins[kPairs];
  if constexpr (kHasMin<Block>) {
    dmin = S::load_f16(tile + 32);
    unroll<kPairs>([&]<int kP>()
                       SPECDEC_INLINE { mins[kP] = load_min_pair<S, Block>(tile, kP, 0); });
  }
  for (int c = first; c < end; ++c) {
    const auto factor = S::f_set1(da[c]);
    const std::int32_t* of_column = sums[0] + 16 * (c - origin);
    const auto sum = sum_of<Block>(of_column, of_column + (kPlaneCount<Block> - 1) * kHalves * 256);
    auto acc = S::f_fma(S::to_f32(sum), S::f_mul(d, factor), S::f_load(out + 16 * c));
    if constexpr (kHasMin<Block>) {
      typename S::I32 of_mins = S::zero();
      unroll<kPairs>([&]<int kP>() SPECDEC_INLINE {
        of_mins = S::dot_pairs(of_mins, mins[kP], pairs + kP * n_cols + c);
      });
      acc = S::f_fnma(S::to_f32(of_mins), S::f_mul(dmin, factor), acc);
    }
    S::f_store(out + 16 * c, acc);
  }
}

// K-quants; kHalves: of the columns of a pass, in 16.
template <class Registers, class Block, int kHalves, int kPasses>
void wide_q256(const std::uint8_t* tiles, const PackedInput& input, float* out) {
  constexpr int kTileBytes = TileShape<Block>::kTileBytes;
  constexpr int kN = kPlaneCount<Block>;
  constexpr bool kSigned = kPlanes<Block> == Planes::kNegated;
  constexpr int kBlocks = 2 / kPasses;  // of 32, decoded at a time
  // With two passes a tile is needed until the second one is done.
  Stage<4 * kPasses, kN, kRegisterBytes, kHalves, kN> stage;
  const auto piece_of = [](std::int64_t t, int piece)
                            SPECDEC_INLINE { return kPasses == 1 ? piece : t % 2 * 4 + piece; };
  const Passes<kPasses> passes(input.n_cols);
  configure<Registers>(passes.size, 64);
  for (int i = 0; i < input.n_cols * kTileRows; ++i) out[i] = 0;
  pipeline<4, kPasses>(
      input.n_in / 256,
      [&]<int kPart>(std::int64_t t) SPECDEC_INLINE {
        unroll<kBlocks>([&]<int kI>() SPECDEC_INLINE {
          constexpr int kBlock = kPart * kBlocks + kI;
          constexpr int kAt = kBlock % 2 * kRegisterBytes / 2;
          auto* planes = stage.weights[piece_of(t, kBlock / 2)];
          decode_scaled<Block>(tiles + t * kTileBytes, kBlock, planes[0] + kAt,
                               planes[kN - 1] + kAt);
        });
      },
      [&]<int kP, int kPass>(std::int64_t t) SPECDEC_INLINE {
        const std::int8_t* a = input.q + ((4 * t + kP) * input.n_cols + passes.first(kPass)) * 64;
        const auto* planes = stage.weights[piece_of(t, kP)];
        unroll<kHalves>([&]<int kH>() SPECDEC_INLINE {
          Registers::template load<4 + kH>(a + kH * kRegisterBytes, 64);
        });
        unroll<kN>([&]<int kI>() SPECDEC_INLINE {
          Registers::template load<6 + kI>(planes[kI], 64);
          unroll<kHalves>([&]<int kH>() SPECDEC_INLINE {
            constexpr int kSum = 2 * kI + kH;
            if constexpr (kP == 0) Registers::template zero<kSum>();
            if constexpr (kSigned || (kI == 1 && kPlanes<Block> == Planes::kWords)) {
              Registers::template dot_ss<kSum, 4 + kH, 6 + kI>();
            } else {
              Registers::template dot_su<kSum, 4 + kH, 6 + kI>();
            }
            if constexpr (kP == 3) Registers::template store<kSum>(stage.sums[kI] + 256 * kH, 64);
          });
        });
      },
      [&]<int kQuarter, int kPass>(std::int64_t t) SPECDEC_INLINE {
        finish_scaled<Block, kHalves>(tiles + t * kTileBytes, input, t, stage.sums,
                                      passes.first(kPass), passes.part(kPass, kQuarter, 4),
                                      passes.part(kPass, kQuarter + 1, 4), out);
      });
}

// acc += d_w * d_a * dot (+ m_w * d_a * sum_a) of the two blocks of tile t, for columns first ..
// end - 1; sums are those of column `origin` and later ones.
template <class Block, int kHalves>
SPECDEC_INLINE inline void finish_blocks(const std::uint8_t* tile, const PackedInput& input,
                                         std::int64_t t, const std::int32_t (*sums)[kHalves * 256],
                                         int origin, int first, int end, float* out) {
  using S = Simd;
  const int n_cols = input.n_cols;
  const std::int64_t at = 2 * t * n_cols;
  typename S::F32 d[2];
  [[maybe_unused]] typename S::F32 m[2];
  unroll<2>([&]<int kB>() SPECDEC_INLINE {
    d[kB] = load_scale<S, Block>(tile + 32 * kB);
    if constexpr (kHasMin<Block>) m[kB] = S::load_f16(tile + 64 + 32 * kB);
  });
  for (int c = first; c < end; ++c) {
    auto acc = S::f_load(out + 16 * c);
    unroll<2>([&]<int kB>() SPECDEC_INLINE {
      const std::int64_t i = at + kB * n_cols + c;
      const auto dot = S::to_f32(Fold::load_sums(sums[kB] + 16 * (c - origin)));
      acc = S::f_fma(dot, S::f_mul(d[kB], S::f_set1(input.d[i])), acc);
      if constexpr (kHasMin<Block>) acc = S::f_fma(m[kB], S::f_set1(input.scaled_sums[i]), acc);
    });
    S::f_store(out + 16 * c, acc);
  }
}

// Formats with blocks of 32, whose scales are floats: a register of sums for each block. Columns
// `origin` .. origin + size - 1, up to 32.
template <class Registers, class Block, int kHalves>
void wide_q32(const std::uint8_t* tiles, const PackedInput& input, int origin, int size,
              float* out) {
  using S = Simd;
  using Shape = TileShape<Block>;
  constexpr int kAheadStep = (Shape::kTileBytes / 2 + 63) / 64 * 64;
  Stage<4, 1, kRegisterBytes / 2, kHalves, 4> stage;  // sums of two tiles
  configure<Registers>(size, 32);
  for (int i = origin * kTileRows; i < (origin + size) * kTileRows; ++i) out[i] = 0;
  const auto piece_of = [](std::int64_t t, int piece) SPECDEC_INLINE { return t % 2 * 2 + piece; };
  pipeline<2, 1>((input.n_in + 63) / 64,
                 [&]<int kP>(std::int64_t t) SPECDEC_INLINE {
                   const std::uint8_t* tile = tiles + t * Shape::kTileBytes;
                   const std::uint8_t* ahead = tile + kWidePrefetchAhead + kP * kAheadStep;
                   for (int i = 0; i < kAheadStep; i += 64) S::prefetch(ahead + i);
                   typename S::Bytes w[8];
                   decode_codes<S, Block>(tile + Shape::kHeaderBytes + kP * Shape::kBlockBytes, 0,
                                          w);
                   std::uint8_t* lines = stage.weights[piece_of(t, kP)][0];
                   unroll<8>([&]<int kV>() SPECDEC_INLINE {
                     Fold::template put_codes<kZero<Block>>(w[kV], lines + 64 * kV);
                   });
                 },
                 [&]<int kP, int>(std::int64_t t) SPECDEC_INLINE {
                   const std::int8_t* a = input.q + (t * input.n_cols + origin) * 64 + 32 * kP;
                   Registers::template load<6 + kP>(stage.weights[piece_of(t, kP)][0], 64);
                   unroll<kHalves>([&]<int kH>() SPECDEC_INLINE {
                     constexpr int kSum = 2 * kP + kH;
                     Registers::template load<4 + kH>(a + kH * kRegisterBytes, 64);
                     Registers::template zero<kSum>();
                     Registers::template dot_ss<kSum, 4 + kH, 6 + kP>();
                     Registers::template store<kSum>(stage.sums[piece_of(t, kP)] + 256 * kH, 64);
                   });
                 },
                 [&]<int kHalf, int>(std::int64_t t) SPECDEC_INLINE {
                   finish_blocks<Block, kHalves>(
                       tiles + t * Shape::kTileBytes, input, t, stage.sums + piece_of(t, 0), origin,
                       origin + size * kHalf / 2, origin + size * (kHalf + 1) / 2, out);
                 });
}

template <class Registers, class Block>
void wide_tile(const std::uint8_t* tiles, const PackedInput& input, float* out) {
  constexpr int kMost = 2 * kRegisterRows;  // of a pass
  const int n_cols = input.n_cols;
  if constexpr (TileShape<Block>::kSuper) {
    if (n_cols <= kRegisterRows) return wide_q256<Registers, Block, 1, 1>(tiles, input, out);
    if (n_cols <= kMost) return wide_q256<Registers, Block, 2, 1>(tiles, input, out);
    wide_q256<Registers, Block, 2, 2>(tiles, input, out);
  } else {
    // Their decoding is cheap beside the float products that each block has for itself.
    if (n_cols <= kRegisterRows) return wide_q32<Registers, Block, 1>(tiles, input, 0, n_cols, out);
    if (n_cols <= kMost) return wide_q32<Registers, Block, 2>(tiles, input, 0, n_cols, out);
    const Passes<2> passes(n_cols);
    for (int pass = 0; pass < 2; ++pass)
      wide_q32<Registers, Block, 2>(tiles, input, passes.first(pass), passes.size, out);
  }
}

// The least columns for which this takes less time than the kernels of up to kMaxColumns, by what
// decoding costs; measured (docs/kernels.md).
template <class Block>
inline constexpr int kFrom = [] {
  if (!TileShape<Block>::kSuper || kPlanes<Block> == Planes::kWords) return 9;
  if (kPlanes<Block> == Planes::kSplit) return 7;
  return kPlanes<Block> == Planes::kNegated ? 6 : 5;
}();

// Of all formats of blocks.
template <class Registers>
constexpr WideKernels wide_kernels() {
  WideKernels table{};
#define SPECDEC_BLOCK(name, ...)                                                \
  table.tile[dtype_index(DType::k##name)] = &wide_tile<Registers, Block##name>; \
  table.from[dtype_index(DType::k##name)] = kFrom<Block##name>;
#include "tensor/formats.def"
  table.leave = &leave<Registers>;
  return table;
}

}  // namespace specdec::SPECDEC_KERNELS
