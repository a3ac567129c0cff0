// How kernels read a Q5_K tile (layout in pack.cc). Included inside a target region.
#pragma once

#include "quant/lines-inl.h"

namespace specdec::SPECDEC_ISA {

struct TileQ5_K {
  static constexpr int kLinesOffset = 320;
  static constexpr int kBlockBytes = 5 * 64;  // per 32 k
  static constexpr int kSubBlock = 32;
  static constexpr bool kHasMin = true;
  static constexpr int kZeroShift = -1;  // codes stand for q - 2^kZeroShift; -1: no offset
  static constexpr int kMaxWeight = 31;

  // Codes of one block of 32, of rows lane .. lane + kLanes - 1.
  template <class S>
  SPECDEC_INLINE static void decode(const std::uint8_t* lines, int lane, typename S::Bytes* w) {
    decode_nibbles<S>(lines, lane, w);
    add_bit_line<S, 4>(lines + 256, lane, w);
  }
  template <class S>
  SPECDEC_INLINE static typename S::I32 scale(const std::uint8_t* tile, int sub, int lane) {
    return S::load_u8(tile + 64 + 16 * sub + lane);
  }
  // Mins of sub-blocks 2 * pair and 2 * pair + 1 as two int16.
  template <class S>
  SPECDEC_INLINE static typename S::I32 min_pair(const std::uint8_t* tile, int pair, int lane) {
    return S::load_u8_pairs(tile + 192 + 32 * pair + 2 * lane);
  }
};

}  // namespace specdec::SPECDEC_ISA
