// IQ1_M: 256 weights by patterns of 8, 1.75 bits per weight. w = d * scale * (-1, 0 or 1, plus or
// minus 1/8), one odd scale up to 15 for 16 weights and one sign of the eighth for 8.
#pragma once

#include <cstdint>

#include "quant/grids.h"

namespace specdec {

// bytes 0-31   qs[32]     bits 0-7 of the number of the pattern of weights 8i .. 8i + 7
// bytes 32-47  qh[16]     its bits 8-10 and, set for minus 1/8, bit 3 above them: the low (i even)
// or
//                         high nibble of byte i / 2
// bytes 48-55  scales[4]  (scale - 1) / 2 of 16 weights in three bits from 3 * (s % 4) of u16 s /
// 4;
//                         the upper nibbles are d, an f16, the lowest first
struct BlockIQ1_M {
  std::uint8_t qs[32];
  std::uint8_t qh[16];
  std::uint16_t scales[4];

  static constexpr Codes kCodes{.low_bits = 2,
                                .high_bits = 1,
                                .zero_shift = 4,
                                .scales = ScaleKind::kSigned16,
                                .d_shift = 3,
                                .values = kIq1Values,
                                .by_value = true};
  void codes(int b, std::uint8_t* q) const {
    for (int j = 0; j < 4; ++j) {
      const int bits = qh[2 * b + j / 2] >> (4 * (j % 2));
      const int number = qs[4 * b + j] | (bits & 7) << 8;
      eight_codes(kGridIq1[number], (bits & 8) != 0 ? 255 : 0, q + 8 * j);
    }
  }
  [[nodiscard]] int scale(int s) const { return 2 * ((scales[s / 4] >> (3 * (s % 4))) & 7) + 1; }
  [[nodiscard]] constexpr std::uint16_t d_half() const {
    int out = 0;
    for (int i = 0; i < 4; ++i) out |= (scales[i] >> 12) << (4 * i);
    return static_cast<std::uint16_t>(out);
  }
};
static_assert(sizeof(BlockIQ1_M) == 56);

}  // namespace specdec
