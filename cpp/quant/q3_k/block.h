// Q3_K: 256 weights of 3 bits, 3.4375 bits per weight. w = d * (scale - 32) * (q - 4),
// one scale of 6 bits for 16 weights.
#pragma once

#include <cstdint>

#include "quant/codes.h"

namespace specdec {

// bytes 0-31    hmask[32]   weight 32i + l (i < 8, l < 32): bit i of hmask[l] is bit 2 of q
// bytes 32-95   qs[64]      weight 128h + 32j + l: bits 2j, 2j+1 of qs[32h + l] are bits 0-1 of q
// bytes 96-107  scales[12]  scale s (s < 16): bits 0-3 are nibble s/8 of scales[s%8],
//                           bits 4-5 are bits 2(s/4), 2(s/4)+1 of scales[8 + s%4]
// bytes 108-109 d           f16 scale of the scales
struct BlockQ3_K {
  std::uint8_t hmask[32];
  std::uint8_t qs[64];
  std::uint8_t scales[12];
  std::uint16_t d;

  static constexpr Codes kCodes{
      .low_bits = 2, .high_bits = 1, .zero_shift = 2, .scales = ScaleKind::kSigned16};
  void codes(int b, std::uint8_t* q) const {
    for (int k = 0; k < 32; ++k) {
      const int low = (qs[32 * (b / 4) + k] >> (2 * (b % 4))) & 3;
      q[k] = static_cast<std::uint8_t>(low | ((hmask[k] >> b) & 1) << 2);
    }
  }
  [[nodiscard]] int scale(int s) const {
    const int low = (scales[s % 8] >> (4 * (s / 8))) & 15;
    return (low | ((scales[8 + s % 4] >> (2 * (s / 4))) & 3) << 4) - 32;
  }
};
static_assert(sizeof(BlockQ3_K) == 110);

}  // namespace specdec
