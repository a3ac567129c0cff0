// How kernels read a Q6_K tile (layout in pack.cc). Included inside a target region.
#pragma once

#include "quant/lines-inl.h"

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
    decode_nibbles<S>(lines, lane, w);
    add_two_bit_lines<S, 4>(lines + 256, lane, w);
  }
  template <class S>
  SPECDEC_INLINE static typename S::I32 scale(const std::uint8_t* tile, int sub, int lane) {
    return S::load_i8(tile + 64 + 16 * sub + lane);
  }
};

}  // namespace specdec::SPECDEC_ISA
