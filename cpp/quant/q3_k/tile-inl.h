// How kernels read a Q3_K tile (layout in pack.cc). Included inside a target region.
#pragma once

#include "quant/lines-inl.h"

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
    decode_two_bits<S>(lines, lane, w);
    add_bit_line<S, 2>(lines + 128, lane, w);
  }
  template <class S>
  SPECDEC_INLINE static typename S::I32 scale(const std::uint8_t* tile, int sub, int lane) {
    return S::load_i8(tile + 64 + 16 * sub + lane);
  }
};

}  // namespace specdec::SPECDEC_ISA
