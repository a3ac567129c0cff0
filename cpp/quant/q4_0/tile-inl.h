// How kernels read a Q4_0 tile (layout in quant/pack_blocks.h). Included inside a target region.
#pragma once

#include "quant/lines-inl.h"

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
    decode_nibbles<S>(lines, lane, w);
  }
};

}  // namespace specdec::SPECDEC_ISA
