// Q4_0: 32 weights of 4 bits, 4.5 bits per weight. w = d * (q - 8).
#pragma once

#include <cstdint>

#include "quant/codes.h"

namespace specdec {

// bytes 0-1    d       f16 scale
// bytes 2-17   qs[16]  byte j: low nibble is weight j, high nibble is weight j + 16
struct BlockQ4_0 {
  std::uint16_t d;
  std::uint8_t qs[16];

  static constexpr Codes kCodes{.zero_shift = 3};
  void codes(int, std::uint8_t* q) const { nibble_codes(*this, q); }
};
static_assert(sizeof(BlockQ4_0) == 18);

}  // namespace specdec
