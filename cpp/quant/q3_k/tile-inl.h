// How kernels read a Q3_K tile (layout in pack.cc). Included inside a target region.
#pragma once

namespace specdec::SPECDEC_ISA {

struct TileQ3_K {
  static constexpr int kLinesOffset = 320;
  static constexpr int kBlockBytes = 3 * 64;  // per 32 k
  static constexpr int kSubBlock = 16;
  static constexpr bool kHasMin = false;
  static constexpr int kZeroShift = 2;  // codes stand for q - 2^kZeroShift
  static constexpr int kMaxWeight = 7;

  // Codes of one block of 32, of rows lane .. lane + kLanes - 1.
  template <class S>
  SPECDEC_INLINE static void decode(const std::uint8_t* lines, int lane, typename S::Bytes* w) {
    unroll<2>([&]<int kJ>() SPECDEC_INLINE {
      const auto line = S::load(lines + 64 * kJ + 4 * lane);
      w[4 * kJ] = S::template bits<0, 3>(line);
      w[4 * kJ + 1] = S::template bits<2, 3>(line);
      w[4 * kJ + 2] = S::template bits<4, 3>(line);
      w[4 * kJ + 3] = S::template bits<6, 3>(line);
    });
    const auto plane = S::load(lines + 128 + 4 * lane);
    w[0] = S::template or_bits<-2, 4>(w[0], plane);
    w[1] = S::template or_bits<-1, 4>(w[1], plane);
    w[2] = S::template or_bits<0, 4>(w[2], plane);
    w[3] = S::template or_bits<1, 4>(w[3], plane);
    w[4] = S::template or_bits<2, 4>(w[4], plane);
    w[5] = S::template or_bits<3, 4>(w[5], plane);
    w[6] = S::template or_bits<4, 4>(w[6], plane);
    w[7] = S::template or_bits<5, 4>(w[7], plane);
  }
  template <class S>
  SPECDEC_INLINE static typename S::I32 scale(const std::uint8_t* tile, int sub, int lane) {
    return S::load_i8(tile + 64 + 16 * sub + lane);
  }
};

}  // namespace specdec::SPECDEC_ISA
