// Q5_0: 32 weights of 5 bits, 5.5 bits per weight. w = d * (q - 16).
#pragma once

#include <cstdint>

#include "quant/codes.h"

namespace specdec {

// bytes 0-1    d       f16 scale
// bytes 2-5    qh[4]   little-endian u32: bit j is bit 4 of weight j
// bytes 6-21   qs[16]  byte j: low nibble is weight j, high nibble is weight j + 16
struct BlockQ5_0 {
  std::uint16_t d;
  std::uint8_t qh[4];
  std::uint8_t qs[16];

  static constexpr Codes kCodes{.high_bits = 1, .zero_shift = 4};
  void codes(int, std::uint8_t* q) const { nibble_codes(*this, q); }
};
static_assert(sizeof(BlockQ5_0) == 22);

}  // namespace specdec
