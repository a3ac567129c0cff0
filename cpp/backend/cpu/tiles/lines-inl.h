// Reads the tiles that tile_format.h describes: w[v] receives vector v of a block of 32, of rows
// lane .. lane + kLanes - 1. Included inside a target region, after the instruction set's Simd.
#pragma once

namespace specdec::SPECDEC_KERNELS {

// w = the 4 nibble lines.
template <class S>
SPECDEC_INLINE inline void decode_nibbles(const std::uint8_t* lines, int lane,
                                          typename S::Bytes* w) {
  unroll<4>([&]<int kJ>() SPECDEC_INLINE {
    const auto line = S::load(lines + 64 * kJ + 4 * lane);
    w[2 * kJ] = S::low4(line);
    w[2 * kJ + 1] = S::high4(line);
  });
}

// w = the 2 two-bit lines.
template <class S>
SPECDEC_INLINE inline void decode_two_bits(const std::uint8_t* lines, int lane,
                                           typename S::Bytes* w) {
  unroll<2>([&]<int kJ>() SPECDEC_INLINE {
    const auto line = S::load(lines + 64 * kJ + 4 * lane);
    unroll<4>([&]<int kU>() SPECDEC_INLINE { w[4 * kJ + kU] = S::template bits<2 * kU, 3>(line); });
  });
}

// w |= the bit line, as bit kBit.
template <class S, int kBit>
SPECDEC_INLINE inline void add_bit_line(const std::uint8_t* line, int lane, typename S::Bytes* w) {
  const auto plane = S::load(line + 4 * lane);
  unroll<8>([&]<int kV>() SPECDEC_INLINE {
    w[kV] = S::template or_bits<kV - kBit, 1 << kBit>(w[kV], plane);
  });
}

// w -= the inverted bit line, as bit kBit: add_bit_line() without an offset of that bit.
template <class S, int kBit>
SPECDEC_INLINE inline void take_bit_line(const std::uint8_t* line, int lane, typename S::Bytes* w) {
  const auto plane = S::invert(S::load(line + 4 * lane));
  unroll<8>([&]<int kV>() SPECDEC_INLINE {
    w[kV] = S::template minus_bits<kV - kBit, 1 << kBit>(w[kV], plane);
  });
}

// w |= the 2 two-bit lines, as bits kBit and kBit + 1.
template <class S, int kBit>
SPECDEC_INLINE inline void add_two_bit_lines(const std::uint8_t* lines, int lane,
                                             typename S::Bytes* w) {
  unroll<2>([&]<int kJ>() SPECDEC_INLINE {
    const auto plane = S::load(lines + 64 * kJ + 4 * lane);
    unroll<4>([&]<int kU>() SPECDEC_INLINE {
      w[4 * kJ + kU] = S::template or_bits<2 * kU - kBit, 3 << kBit>(w[4 * kJ + kU], plane);
    });
  });
}

// The codes of one block of 32, w[v] those of vector v; kSigned: without their offset.
template <class S, class Block, bool kSigned = false>
SPECDEC_INLINE inline void decode_codes(const std::uint8_t* lines, int lane, typename S::Bytes* w) {
  constexpr Codes kCodes = Block::kCodes;
  if constexpr (kCodes.low_bits == 8) {
    unroll<8>([&]<int kV>() SPECDEC_INLINE { w[kV] = S::load(lines + 64 * kV + 4 * lane); });
  } else if constexpr (kCodes.low_bits == 4) {
    decode_nibbles<S>(lines, lane, w);
  } else {
    static_assert(kCodes.low_bits == 2);
    decode_two_bits<S>(lines, lane, w);
  }
  const std::uint8_t* high = lines + TileShape<Block>::kLowBytes;
  constexpr bool kTopBit = kOffsetIsTopBit<Block>;
  if constexpr (kSigned && kTopBit)
    take_bit_line<S, kCodes.low_bits>(high, lane, w);
  else if constexpr (kCodes.high_bits == 1)
    add_bit_line<S, kCodes.low_bits>(high, lane, w);
  if constexpr (kCodes.high_bits == 2) add_two_bit_lines<S, kCodes.low_bits>(high, lane, w);
  if constexpr (kCodes.by_value) {
    const auto table = S::load_table(kSigned ? kSignedValues<Block>.v : kOffsetValues<Block>.v);
    unroll<8>([&]<int kV>() SPECDEC_INLINE { w[kV] = S::lookup(table, w[kV]); });
  } else if constexpr (kSigned && !kTopBit) {
    unroll<8>([&]<int kV>()
                  SPECDEC_INLINE { w[kV] = S::template subtract<1 << kCodes.zero_shift>(w[kV]); });
  }
}

// Scales d, lane for row.
template <class S, class Block>
SPECDEC_INLINE inline typename S::F32 load_scale(const std::uint8_t* p) {
  if constexpr (kWideScale<Block>) {
    return S::load_bf16(p);
  } else if constexpr (Block::kCodes.d_shift > 0) {
    return S::f_mul(S::load_f16(p), S::f_set1(1.0F / (1 << Block::kCodes.d_shift)));
  } else {
    return S::load_f16(p);
  }
}

// Of sub-block `sub` of a block of 256.
template <class S, class Block>
SPECDEC_INLINE inline typename S::I32 load_sub_scale(const std::uint8_t* tile, int sub, int lane) {
  constexpr ScaleKind kKind = Block::kCodes.scales;
  if constexpr (kKind == ScaleKind::kPairs32) return S::load_u8(tile + 64 + 16 * sub + lane);
  if constexpr (kKind == ScaleKind::kSigned16 || kKind == ScaleKind::kSigned32)
    return S::load_i8(tile + 64 + 16 * sub + lane);
  if constexpr (kKind == ScaleKind::kPairs16) {
    const auto pair =
        S::template bits<0, 0x0F>(S::load_u8_pairs(tile + 64 + 32 * (sub / 2) + 2 * lane));
    return sub % 2 == 0 ? S::low16(pair) : S::high16(pair);
  }
}

// Mins of sub-blocks 2 * pair and 2 * pair + 1 as two int16.
template <class S, class Block>
SPECDEC_INLINE inline typename S::I32 load_min_pair(const std::uint8_t* tile, int pair, int lane) {
  if constexpr (Block::kCodes.scales == ScaleKind::kPairs32) {
    return S::load_u8_pairs(tile + 192 + 32 * pair + 2 * lane);
  } else {
    return S::template bits<4, 0x0F>(S::load_u8_pairs(tile + 64 + 32 * pair + 2 * lane));
  }
}

}  // namespace specdec::SPECDEC_KERNELS
