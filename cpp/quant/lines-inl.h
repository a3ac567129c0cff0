// Decodes the lines that quant/tile_format.h describes: w[v] receives vector v of a block of 32, of
// rows lane .. lane + kLanes - 1. Included inside a target region, after the instruction set's
// Simd.
#pragma once

namespace specdec::SPECDEC_ISA {

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

}  // namespace specdec::SPECDEC_ISA
