// Q4_1: 32 weights of 4 bits, 5 bits per weight. w = d * q + m.
#pragma once

#include <cstdint>

#include "quant/codes.h"

namespace specdec {

// bytes 0-1    d       f16 scale
// bytes 2-3    m       f16 minimum
// bytes 4-19   qs[16]  byte j: low nibble is weight j, high nibble is weight j + 16
struct BlockQ4_1 {
  std::uint16_t d;
  std::uint16_t m;
  std::uint8_t qs[16];

  static constexpr Codes kCodes{};
  void codes(int, std::uint8_t* q) const { nibble_codes(*this, q); }
};
static_assert(sizeof(BlockQ4_1) == 20);

}  // namespace specdec
