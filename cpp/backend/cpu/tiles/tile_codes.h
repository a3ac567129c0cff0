// What readers of tiles need to know of codes at compile time. Included before a target region.
#pragma once

#include "backend/cpu/tiles/tile_format.h"
#include "quant/blocks.h"

namespace specdec {

// values[q] + 2^zero_shift: unsigned, as the dot instructions want one side.
struct CodeTable {
  std::uint8_t v[16];
};
template <class Block>
inline constexpr CodeTable kOffsetValues = [] {
  CodeTable out{};
  for (int q = 0; q < 16; ++q)
    out.v[q] = static_cast<std::uint8_t>(Block::kCodes.values[q] + (1 << Block::kCodes.zero_shift));
  return out;
}();

// What they stand for.
template <class Block>
inline constexpr CodeTable kSignedValues = [] {
  CodeTable out{};
  for (int q = 0; q < 16; ++q) out.v[q] = static_cast<std::uint8_t>(Block::kCodes.values[q]);
  return out;
}();
// Whether codes have one high bit, which is worth as much as their offset.
template <class Block>
inline constexpr bool kOffsetIsTopBit =
    Block::kCodes.high_bits == 1 && Block::kCodes.zero_shift == Block::kCodes.low_bits;
// In place of kMaxWeight: weights are signed bytes.
inline constexpr int kSignedWeights = -1;

// The largest number that decoding gives.
template <class Block>
inline constexpr int kMaxWeight = [] {
  if constexpr (!Block::kCodes.by_value) {
    return (1 << (Block::kCodes.low_bits + Block::kCodes.high_bits)) - 1;
  } else {
    int most = 0;
    for (const int v : kOffsetValues<Block>.v) most = v > most ? v : most;
    return most;
  }
}();

}  // namespace specdec
