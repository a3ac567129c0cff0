// How kernels read a Q5_1 tile (layout in quant/pack_blocks.h). Included inside a target region.
#pragma once

#include "quant/lines-inl.h"

namespace specdec::SPECDEC_ISA {

struct TileQ5_1 {
  static constexpr int kHeaderBytes = 128;
  static constexpr int kBlockBytes = 5 * 64;
  static constexpr bool kHasMin = true;  // w = d q + m
  static constexpr int kZeroShift = -1;  // no offset
  static constexpr int kMaxWeight = 31;

  // Codes of one block of 32, of rows lane .. lane + kLanes - 1.
  template <class S>
  SPECDEC_INLINE static void decode(const std::uint8_t* lines, int lane, typename S::Bytes* w) {
    decode_nibbles<S>(lines, lane, w);
    add_bit_line<S, 4>(lines + 256, lane, w);
  }
};

}  // namespace specdec::SPECDEC_ISA
