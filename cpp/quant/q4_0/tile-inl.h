// How kernels read a Q4_0 tile (layout in quant/pack_blocks.h). Included inside a target region.
#pragma once

namespace specdec::SPECDEC_ISA {

struct TileQ4_0 {
  static constexpr int kHeaderBytes = 64;
  static constexpr int kBlockBytes = 4 * 64;
  static constexpr bool kHasMin = false;  // w = d q - d * 2^kZeroShift
  static constexpr int kZeroShift = 3;
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
