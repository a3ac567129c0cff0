// How kernels read a Q6_K tile (layout in pack.cc). Included inside a target region.
#pragma once

namespace specdec::SPECDEC_ISA {

struct TileQ6_K {
  static constexpr int kLinesOffset = 320;
  static constexpr int kBlockBytes = 6 * 64;  // per 32 k
  static constexpr int kSubBlock = 16;
  static constexpr bool kHasMin = false;
  static constexpr int kZeroShift = 5;  // codes stand for q - 2^kZeroShift
  static constexpr int kMaxWeight = 63;

  // Codes of one block of 32, of rows lane .. lane + kLanes - 1.
  template <class S>
  SPECDEC_INLINE static void decode(const std::uint8_t* lines, int lane, typename S::Bytes* w) {
    unroll<4>([&]<int kJ>() SPECDEC_INLINE {
      const auto line = S::load(lines + 64 * kJ + 4 * lane);
      w[2 * kJ] = S::low4(line);
      w[2 * kJ + 1] = S::high4(line);
    });
    unroll<2>([&]<int kJ>() SPECDEC_INLINE {
      const auto plane = S::load(lines + 256 + 64 * kJ + 4 * lane);
      w[4 * kJ] = S::template or_bits<-4, 0x30>(w[4 * kJ], plane);
      w[4 * kJ + 1] = S::template or_bits<-2, 0x30>(w[4 * kJ + 1], plane);
      w[4 * kJ + 2] = S::template or_bits<0, 0x30>(w[4 * kJ + 2], plane);
      w[4 * kJ + 3] = S::template or_bits<2, 0x30>(w[4 * kJ + 3], plane);
    });
  }
  template <class S>
  SPECDEC_INLINE static typename S::I32 scale(const std::uint8_t* tile, int sub, int lane) {
    return S::load_i8(tile + 64 + 16 * sub + lane);
  }
};

}  // namespace specdec::SPECDEC_ISA
