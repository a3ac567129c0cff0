// IQ4_NL: 32 weights of 4 bits, 4.5 bits per weight. w = d * kIq4Values[q]: values that are denser
// around zero.
#pragma once

#include <cstdint>

#include "quant/codes.h"

namespace specdec {

inline constexpr std::int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};

// bytes 0-1    d       f16 scale
// bytes 2-17   qs[16]  byte j: low nibble is weight j, high nibble is weight j + 16
struct BlockIQ4_NL {
  std::uint16_t d;
  std::uint8_t qs[16];

  static constexpr Codes kCodes{.zero_shift = 7, .values = kIq4Values, .by_value = true};
  void codes(int, std::uint8_t* q) const { nibble_codes(*this, q); }
};
static_assert(sizeof(BlockIQ4_NL) == 18);

}  // namespace specdec
