// How kernels read a Q4_1 tile (layout in quant/pack_blocks.h). Included inside a target region.
#pragma once

namespace specdec::SPECDEC_ISA {

struct TileQ4_1 {
  static constexpr int kHeaderBytes = 128;
  static constexpr int kBlockBytes = 4 * 64;
  static constexpr bool kHasMin = true;  // w = d q + m
  static constexpr int kZeroShift = -1;  // no offset
  static constexpr int kMaxWeight = 15;

  // Codes of one block of 32, of rows lane .. lane + kLanes - 1.
  template <class S>
  SPECDEC_INLINE static void decode(const std::uint8_t* lines, int lane, typename S::Bytes* w) {
    unroll<4>([&]<int kJ>() SPECDEC_INLINE {
      const auto line = S::load(lines + 64 * kJ + 4 * lane);
      w[2 * kJ] = S::low4(line);
      w[2 * kJ + 1] = S::high4(line);
    });
  }
};

}  // namespace specdec::SPECDEC_ISA
