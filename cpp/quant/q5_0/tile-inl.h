// How kernels read a Q5_0 tile (layout in quant/pack_blocks.h). Included inside a target region.
#pragma once

namespace specdec::SPECDEC_ISA {

struct TileQ5_0 {
  static constexpr int kHeaderBytes = 64;
  static constexpr int kBlockBytes = 5 * 64;
  static constexpr bool kHasMin = false;  // w = d q - d * 2^kZeroShift
  static constexpr int kZeroShift = 4;
  static constexpr int kMaxWeight = 31;

  // Codes of one block of 32, of rows lane .. lane + kLanes - 1.
  template <class S>
  SPECDEC_INLINE static void decode(const std::uint8_t* lines, int lane, typename S::Bytes* w) {
    unroll<4>([&]<int kJ>() SPECDEC_INLINE {
      const auto line = S::load(lines + 64 * kJ + 4 * lane);
      w[2 * kJ] = S::low4(line);
      w[2 * kJ + 1] = S::high4(line);
    });
    const auto plane = S::load(lines + 256 + 4 * lane);
    w[0] = S::template or_bits<-4, 16>(w[0], plane);
    w[1] = S::template or_bits<-3, 16>(w[1], plane);
    w[2] = S::template or_bits<-2, 16>(w[2], plane);
    w[3] = S::template or_bits<-1, 16>(w[3], plane);
    w[4] = S::template or_bits<0, 16>(w[4], plane);
    w[5] = S::template or_bits<1, 16>(w[5], plane);
    w[6] = S::template or_bits<2, 16>(w[6], plane);
    w[7] = S::template or_bits<3, 16>(w[7], plane);
  }
};

}  // namespace specdec::SPECDEC_ISA
