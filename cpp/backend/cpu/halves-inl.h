// Kernels of sets without a dot product of four bytes (AVX2), where a tile's rows take two
// registers: both halves are multiplied with a word of the activations at a time, so that it is
// read once, and their products are added up in 16 bits as far as they fit. Either the sums of up
// to kHalvesColumns columns are in registers, and weights are decoded as they are needed, or 16 k
// of weights are, and columns take turns.
// Included inside a target region in place of matmul-inl.h; the bits are the same.
#pragma once

namespace specdec::SPECDEC_KERNELS {

// Columns whose sums stay in registers.
inline constexpr int kHalvesColumns = 4;
// Groups of about the same size: the last one decodes as much as the others.
template <int kCols>
inline constexpr int kHalvesGroup = [] {
  constexpr int kGroups = (kCols + kHalvesColumns - 1) / kHalvesColumns;
  return (kCols + kGroups - 1) / kGroups;
}();

template <class Block>
inline constexpr bool kCentredCodes = kMaxWeight<Block> > 127;
// What a dot product starts with instead.
template <class Block>
inline constexpr int kOffsetShift = kCentredCodes<Block> ? -1 : Block::kCodes.zero_shift;

// The codes of vector kV of a block of 32; kSigned: values of a table as they are.
template <class S, class Block, int kV, bool kSigned>
SPECDEC_INLINE inline typename S::Bytes decode_vector(const std::uint8_t* lines, int lane) {
  constexpr Codes kCodes = Block::kCodes;
  constexpr int kLow = kCodes.low_bits;
  constexpr int kHigh = kCodes.high_bits;
  const auto line = [&](int number)
                        SPECDEC_INLINE { return S::load(lines + 64 * number + 4 * lane); };
  typename S::Bytes w;
  if constexpr (kLow == 8) {
    w = line(kV);
  } else if constexpr (kLow == 4) {
    w = kV % 2 == 0 ? S::low4(line(kV / 2)) : S::high4(line(kV / 2));
  } else {
    w = S::template bits<2 * (kV % 4), 3>(line(kV / 4));
  }
  if constexpr (kHigh == 1) w = S::template or_bits<kV - kLow, 1 << kLow>(w, line(kLow));
  if constexpr (kHigh == 2)
    w = S::template or_bits<2 * (kV % 4) - kLow, 3 << kLow>(w, line(kLow + kV / 4));
  if constexpr (kCodes.by_value)
    w = S::lookup(S::load_table(kSigned ? kSignedValues<Block>.v : kOffsetValues<Block>.v), w);
  return w;
}

// Vectors whose products can be summed in 16 bits: |sum| <= n * 2 * 127 * kMaxWeight.
template <class Block>
inline constexpr int kFitting = kCentredCodes<Block> ? 1 : 32767 / (2 * 127 * kMaxWeight<Block>);

// sums[p * kCols + c] += factors[p] * dot: of half p and column c of kN, over vectors kFirst ..
// kFirst + kVectors - 1 of a block of 32. factors: pairs of the same int16. a: that block of those
// columns.
template <class S, class Block, int kCols, int kN, int kFirst, int kVectors>
SPECDEC_INLINE inline void add_halves(const std::uint8_t* lines, const std::int8_t* a,
                                      const typename S::I32* factors, typename S::I32* sums) {
  constexpr bool kCentred = kCentredCodes<Block>;
  constexpr int kRun = kFitting<Block> > kVectors ? kVectors : kFitting<Block>;
  unroll<(kVectors + kRun - 1) / kRun>([&]<int kI>() SPECDEC_INLINE {
    constexpr int kBegin = kI * kRun;
    constexpr int kLength = kVectors - kBegin < kRun ? kVectors - kBegin : kRun;
    typename S::I32 dot[2][kN];
    unroll<kLength>([&]<int kV>() SPECDEC_INLINE {
      constexpr int kVector = kFirst + kBegin + kV;
      typename S::Factor w[2];
      SPECDEC_UNROLL
      for (int p = 0; p < 2; ++p)
        w[p] = S::template factor<kCentred, Block::kCodes.by_value>(
            decode_vector<S, Block, kVector, kCentred>(lines, p * S::kLanes));
      SPECDEC_UNROLL
      for (int c = 0; c < kN; ++c) {
        const auto word = S::word(a + 32 * c + 4 * kVector);
        SPECDEC_UNROLL
        for (int p = 0; p < 2; ++p) {
          const auto product = S::template products<kCentred>(w[p], word);
          dot[p][c] = kV == 0 ? product : S::add16_in_order(dot[p][c], product);
        }
      }
    });
    SPECDEC_UNROLL
    for (int p = 0; p < 2; ++p) SPECDEC_UNROLL
    for (int c = 0; c < kN; ++c) {
      typename S::I32& sum = sums[p * kCols + c];
      const auto scaled = S::madd(dot[p][c], factors[p]);
      sum = kRun == 1 ? S::add_in_order(sum, scaled) : S::add(sum, scaled);
    }
  });
}

// The same for all columns with kVectors <= 4 vectors, which stay in registers: for codes that are
// dear to decode, where the sums of a few columns are not worth doing that twice.
template <class S, class Block, int kCols, int kFirst, int kVectors>
SPECDEC_INLINE inline void add_columns(const std::uint8_t* lines, const std::int8_t* a,
                                       const typename S::I32* factors, typename S::I32* sums) {
  constexpr bool kCentred = kCentredCodes<Block>;
  constexpr int kRun = kFitting<Block> > kVectors ? kVectors : kFitting<Block>;
  typename S::Factor w[2][kVectors];
  unroll<kVectors>([&]<int kV>() SPECDEC_INLINE {
    SPECDEC_UNROLL
    for (int p = 0; p < 2; ++p)
      w[p][kV] = S::template factor<kCentred, Block::kCodes.by_value>(
          decode_vector<S, Block, kFirst + kV, kCentred>(lines, p * S::kLanes));
  });
  static_assert(kVectors % kRun == 0);
  unroll<kCols>([&]<int kC>() SPECDEC_INLINE {
    typename S::I32 sum[2];
    SPECDEC_UNROLL
    for (int i = 0; i < kVectors / kRun; ++i) {
      typename S::I32 dot[2];
      SPECDEC_UNROLL
      for (int v = 0; v < kRun; ++v) {
        const auto word = S::word(a + 32 * kC + 4 * (kFirst + i * kRun + v));
        SPECDEC_UNROLL
        for (int p = 0; p < 2; ++p) {
          const auto product = S::template products<kCentred>(w[p][i * kRun + v], word);
          dot[p] = v == 0 ? product : S::add16_in_order(dot[p], product);
        }
      }
      SPECDEC_UNROLL
      for (int p = 0; p < 2; ++p) {
        const auto scaled = S::madd(dot[p], factors[p]);
        sum[p] = i == 0 ? scaled : S::add(sum[p], scaled);
      }
    }
    SPECDEC_UNROLL
    for (int p = 0; p < 2; ++p) sums[p * kCols + kC] = S::add(sums[p * kCols + kC], sum[p]);
  });
}

// Whether many columns share one decoding: not where it is a mask, or signs take the registers.
template <class Block, int kCols>
inline constexpr bool kDecodesOnce =
    kCols > kHalvesColumns &&
    (TileShape<Block>::kSuper
         ? Block::kCodes.sub_block() == 16 || Block::kCodes.high_bits > 0 || Block::kCodes.by_value
         : Block::kCodes.high_bits > 0);

template <class Block, int kCols>
void tile_q32(const std::uint8_t* tiles, const PackedInput& input, float* out) {
  using S = Simd;
  using Shape = TileShape<Block>;
  const std::int64_t n_tiles = (input.n_in + 63) / 64;
  for (int i = 0; i < kCols * kTileRows; i += S::kLanes) S::f_store(out + i, S::f_zero());
  const S::I32 ones[2] = {S::ones16(), S::ones16()};
  for (std::int64_t t = 0; t < n_tiles; ++t) {
    const std::uint8_t* tile = tiles + t * Shape::kTileBytes;
    for (int b = 0; b < 2; ++b) {
      const std::int64_t block = 2 * t + b;
      constexpr int kAhead = (Shape::kTileBytes / 2 + 63) / 64 * 64;
      prefetch_lines<kAhead>(tile + kPrefetchAhead + b * kAhead);
      const std::uint8_t* lines = tile + Shape::kHeaderBytes + b * Shape::kBlockBytes;
      const auto start = [&]<int kN>(int c, S::I32* dot) SPECDEC_INLINE {
        SPECDEC_UNROLL
        for (int i = 0; i < 2 * kN; ++i) {
          dot[i] = S::zero();
          if constexpr (kOffsetShift<Block> >= 0)
            dot[i] = S::template shift_left<kOffsetShift<Block>>(
                S::set1(input.neg_sums[block * kCols + c + i % kN]));
        }
      };
      const auto finish = [&]<int kN>(int c, const S::I32* dot) SPECDEC_INLINE {
        const float* da = input.d + block * kCols + c;
        SPECDEC_UNROLL
        for (int p = 0; p < 2; ++p) {
          const S::F32 d = load_scale<S, Block>(tile + 32 * b + 2 * p * S::kLanes);
          S::F32 m = S::f_zero();
          if constexpr (kHasMin<Block>) m = S::load_f16(tile + 64 + 32 * b + 2 * p * S::kLanes);
          SPECDEC_UNROLL
          for (int n = 0; n < kN; ++n) {
            float* sum = out + (c + n) * kTileRows + p * S::kLanes;
            S::F32 acc =
                S::f_fma(S::to_f32(dot[p * kN + n]), S::f_mul(d, S::f_set1(da[n])), S::f_load(sum));
            if constexpr (kHasMin<Block>)
              acc = S::f_fma(m, S::f_set1(input.scaled_sums[block * kCols + c + n]), acc);
            S::f_store(sum, acc);
          }
        }
      };
      const std::int8_t* a = input.q + block * 32 * kCols;
      if constexpr (kDecodesOnce<Block, kCols>) {
        S::I32 dot[2 * kCols];
        start.template operator()<kCols>(0, dot);
        unroll<2>([&]<int kHalf>() SPECDEC_INLINE {
          add_columns<S, Block, kCols, 4 * kHalf, 4>(lines, a, ones, dot);
        });
        finish.template operator()<kCols>(0, dot);
      } else {
        for_groups<kCols, kHalvesGroup<kCols>>([&]<int kC0, int kN>() SPECDEC_INLINE {
          S::I32 dot[2 * kN];
          start.template operator()<kN>(kC0, dot);
          add_halves<S, Block, kN, kN, 0, 8>(lines, a + 32 * kC0, ones, dot);
          finish.template operator()<kN>(kC0, dot);
        });
      }
    }
  }
}

// Minus the codes' offset times the activations, over all 256 k at once.
template <class S, class Block, int kCols>
SPECDEC_INLINE inline void start_halves(const std::uint8_t* tile, const std::int32_t* pairs,
                                        typename S::I32* sums) {
  for (int i = 0; i < 2 * kCols; ++i) sums[i] = S::zero();
  if constexpr (kOffsetShift<Block> >= 0) {
    for (int p = 0; p < 128 / Block::kCodes.sub_block(); ++p) {
      SPECDEC_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int lane = half * S::kLanes;
        const auto scales = S::pair16(load_sub_scale<S, Block>(tile, 2 * p, lane),
                                      load_sub_scale<S, Block>(tile, 2 * p + 1, lane));
        SPECDEC_UNROLL
        for (int c = 0; c < kCols; ++c)
          sums[half * kCols + c] =
              S::dot_pairs(sums[half * kCols + c], scales, pairs + p * kCols + c);
      }
    }
    for (int i = 0; i < 2 * kCols; ++i)
      sums[i] = S::negate(S::template shift_left<kOffsetShift<Block>>(sums[i]));
  }
}

// Of a block of 256: out -= (dmin d_a) * sum of min times the sums of activations in pairs.
template <class S, class Block, int kCols, int kPairs>
SPECDEC_INLINE inline void subtract_minimums(const std::uint8_t* tile, const std::int32_t* pairs,
                                             const float* da, float* out) {
  for_groups<kCols, kHalvesGroup<kCols>>([&]<int kC0, int kN>() SPECDEC_INLINE {
    typename S::I32 sum[2][kN];
    SPECDEC_UNROLL
    for (int i = 0; i < 2 * kN; ++i) sum[i / kN][i % kN] = S::zero();
    for (int p = 0; p < kPairs; ++p) {
      const typename S::I32 mins[2] = {load_min_pair<S, Block>(tile, p, 0),
                                       load_min_pair<S, Block>(tile, p, S::kLanes)};
      SPECDEC_UNROLL
      for (int c = 0; c < kN; ++c) {
        const std::int32_t* pair = pairs + p * kCols + kC0 + c;
        SPECDEC_UNROLL
        for (int half = 0; half < 2; ++half)
          sum[half][c] = S::dot_pairs(sum[half][c], mins[half], pair);
      }
    }
    SPECDEC_UNROLL
    for (int half = 0; half < 2; ++half) {
      const auto dmin = S::load_f16(tile + 32 + 2 * half * S::kLanes);
      SPECDEC_UNROLL
      for (int c = 0; c < kN; ++c) {
        float* to = out + (kC0 + c) * kTileRows + half * S::kLanes;
        S::f_store(to, S::f_fnma(S::to_f32(sum[half][c]), S::f_mul(dmin, S::f_set1(da[kC0 + c])),
                                 S::f_load(to)));
      }
    }
  });
}

template <class Block, int kCols>
void tile_q256(const std::uint8_t* tiles, const PackedInput& input, float* out) {
  using S = Simd;
  using Shape = TileShape<Block>;
  constexpr int kSubBlock = Block::kCodes.sub_block();
  constexpr int kSubs = 32 / kSubBlock;
  constexpr int kPairs = 128 / kSubBlock;
  const std::int32_t* all_pairs = kSubBlock == 32 ? input.pairs32 : input.pairs16;
  const std::int64_t n_tiles = input.n_in / 256;
  for (int i = 0; i < kCols * kTileRows; i += S::kLanes) S::f_store(out + i, S::f_zero());
  for (std::int64_t t = 0; t < n_tiles; ++t) {
    const std::uint8_t* tile = tiles + t * Shape::kTileBytes;
    const std::int32_t* pairs = all_pairs + t * kPairs * kCols;
    S::I32 sums[2 * kCols];
    start_halves<S, Block, kCols>(tile, pairs, sums);
    for (int b = 0; b < 8; ++b) {
      constexpr int kAhead = (Shape::kTileBytes / 8 + 63) / 64 * 64;
      prefetch_lines<kAhead>(tile + kPrefetchAhead + b * kAhead);
      const std::uint8_t* lines = tile + Shape::kHeaderBytes + b * Shape::kBlockBytes;
      const std::int8_t* a = input.q + (8 * t + b) * 32 * kCols;
      const auto factors = [&](int sub, S::I32* scales) SPECDEC_INLINE {
        SPECDEC_UNROLL
        for (int p = 0; p < 2; ++p) {
          const auto scale = load_sub_scale<S, Block>(tile, b * kSubs + sub, p * S::kLanes);
          scales[p] = S::pair16(scale, scale);
        }
      };
      if constexpr (kDecodesOnce<Block, kCols>) {
        unroll<2>([&]<int kHalf>() SPECDEC_INLINE {
          S::I32 scales[2];
          factors(kHalf * kSubs / 2, scales);
          add_columns<S, Block, kCols, 4 * kHalf, 4>(lines, a, scales, sums);
        });
        continue;
      }
      for_groups<kCols, kHalvesGroup<kCols>>([&]<int kC0, int kN>() SPECDEC_INLINE {
        unroll<kSubs>([&]<int kSub>() SPECDEC_INLINE {
          S::I32 scales[2];
          factors(kSub, scales);
          add_halves<S, Block, kCols, kN, kSub * kSubBlock / 4, kSubBlock / 4>(lines, a + 32 * kC0,
                                                                               scales, sums + kC0);
        });
      });
    }
    const float* da = input.d + t * kCols;
    SPECDEC_UNROLL
    for (int p = 0; p < 2; ++p) {
      const S::F32 d = load_scale<S, Block>(tile + 2 * p * S::kLanes);
      SPECDEC_UNROLL
      for (int c = 0; c < kCols; ++c) {
        float* sum = out + c * kTileRows + p * S::kLanes;
        S::f_store(sum, S::f_fma(S::to_f32(sums[p * kCols + c]), S::f_mul(d, S::f_set1(da[c])),
                                 S::f_load(sum)));
      }
    }
    if constexpr (kHasMin<Block>) subtract_minimums<S, Block, kCols, kPairs>(tile, pairs, da, out);
  }
}

}  // namespace specdec::SPECDEC_KERNELS
