// How kernels read a Q4_1 tile (layout in quant/pack_blocks.h). Included inside a target region.
#pragma once

#include "quant/lines-inl.h"

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
    decode_nibbles<S>(lines, lane, w);
  }
};

}  // namespace specdec::SPECDEC_ISA
