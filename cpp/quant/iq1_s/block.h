// IQ1_S: 256 weights by patterns of 8, 1.5625 bits per weight. w = d * scale * (-1, 0 or 1, plus or
// minus 1/8), one odd scale up to 15 and one sign of the eighth for 32 weights.
#pragma once

#include <cstdint>

#include "quant/grids.h"

namespace specdec {

// bytes 0-1    d       f16 scale of the scales
// bytes 2-33   qs[32]  bits 0-7 of the number of the pattern of weights 8i .. 8i + 7
// bytes 34-49  qh[8]   of 32 weights: bits 8-10 of pattern j in bits 3j .. 3j + 2, (scale - 1) / 2
//                      in bits 12-14, bit 15 is set for minus 1/8
struct BlockIQ1_S {
  std::uint16_t d;
  std::uint8_t qs[32];
  std::uint16_t qh[8];

  static constexpr Codes kCodes{.low_bits = 2,
                                .high_bits = 1,
                                .zero_shift = 4,
                                .scales = ScaleKind::kSigned32,
                                .d_shift = 3,
                                .values = kIq1Values,
                                .by_value = true};
  void codes(int b, std::uint8_t* q) const {
    for (int j = 0; j < 4; ++j) {
      const int number = qs[4 * b + j] | ((qh[b] >> (3 * j)) & 7) << 8;
      eight_codes(kGridIq1[number], qh[b] >> 15 != 0 ? 255 : 0, q + 8 * j);
    }
  }
  [[nodiscard]] int scale(int s) const { return 2 * ((qh[s] >> 12) & 7) + 1; }
};
static_assert(sizeof(BlockIQ1_S) == 50);

}  // namespace specdec
