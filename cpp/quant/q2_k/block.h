// Q2_K: 256 weights of 2 bits, 2.625 bits per weight. w = d * scale * q - dmin * min,
// one (scale, min) of 4 bits each for 16 weights.
#pragma once

#include <cstdint>

#include "quant/codes.h"

namespace specdec {

// bytes 0-15   scales[16]  byte s, for weights 16s..16s+15: low nibble scale, high nibble min
// bytes 16-79  qs[64]      weight 128h + 32j + l (h < 2, j < 4, l < 32):
//                          bits 2j, 2j+1 of qs[32h + l]
// bytes 80-81  d           f16 scale of the scales
// bytes 82-83  dmin        f16 scale of the mins
struct BlockQ2_K {
  std::uint8_t scales[16];
  std::uint8_t qs[64];
  std::uint16_t d;
  std::uint16_t dmin;

  static constexpr Codes kCodes{.low_bits = 2, .scales = ScaleKind::kPairs16};
  void codes(int b, std::uint8_t* q) const {
    for (int k = 0; k < 32; ++k)
      q[k] = static_cast<std::uint8_t>((qs[32 * (b / 4) + k] >> (2 * (b % 4))) & 3);
  }
  [[nodiscard]] int scale(int s) const { return scales[s] & 15; }
  [[nodiscard]] int min(int s) const { return scales[s] >> 4; }
};
static_assert(sizeof(BlockQ2_K) == 84);

}  // namespace specdec
