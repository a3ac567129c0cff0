// How kernels read a Q2_K tile (layout in pack.cc). Included inside a target region.
#pragma once

#include "quant/lines-inl.h"

namespace specdec::SPECDEC_ISA {

struct TileQ2_K {
  static constexpr int kLinesOffset = 320;
  static constexpr int kBlockBytes = 2 * 64;  // per 32 k
  static constexpr int kSubBlock = 16;
  static constexpr bool kHasMin = true;
  static constexpr int kZeroShift = -1;  // codes stand for q - 2^kZeroShift; -1: no offset
  static constexpr int kMaxWeight = 3;

  // Codes of one block of 32, of rows lane .. lane + kLanes - 1.
  template <class S>
  SPECDEC_INLINE static void decode(const std::uint8_t* lines, int lane, typename S::Bytes* w) {
    decode_two_bits<S>(lines, lane, w);
  }
  template <class S>
  SPECDEC_INLINE static typename S::I32 scale(const std::uint8_t* tile, int sub, int lane) {
    const auto pair =
        S::template bits<0, 0x0F>(S::load_u8_pairs(tile + 64 + 32 * (sub / 2) + 2 * lane));
    return sub % 2 == 0 ? S::low16(pair) : S::high16(pair);
  }
  // Mins of sub-blocks 2 * pair and 2 * pair + 1 as two int16.
  template <class S>
  SPECDEC_INLINE static typename S::I32 min_pair(const std::uint8_t* tile, int pair, int lane) {
    return S::template bits<4, 0x0F>(S::load_u8_pairs(tile + 64 + 32 * pair + 2 * lane));
  }
};

}  // namespace specdec::SPECDEC_ISA
