// IQ2_XS: 256 weights by patterns of 8, 2.3125 bits per weight. w = d / 8 * scale * value, one odd
// scale up to 31 for 16 weights.
#pragma once

#include <cstdint>

#include "quant/grids.h"

namespace specdec {

// bytes 0-1    d          f16 scale of the scales
// bytes 2-65   qs[32]     of 8 weights: bits 0-8 the pattern's number, bits 9-15 seven signs
// bytes 66-73  scales[8]  (scale - 1) / 2 of 16 weights: the low (s even) or high nibble of byte
// s/2
struct BlockIQ2_XS {
  std::uint16_t d;
  std::uint16_t qs[32];
  std::uint8_t scales[8];

  static constexpr Codes kCodes{.low_bits = 2,
                                .high_bits = 1,
                                .zero_shift = 6,
                                .scales = ScaleKind::kSigned16,
                                .d_shift = 3,
                                .values = kIq2Values,
                                .by_value = true};
  void codes(int b, std::uint8_t* q) const {
    for (int j = 0; j < 4; ++j) {
      const unsigned bits = qs[4 * b + j];
      eight_codes(kGridIq2Xs[bits & 511U], even_signs(bits >> 9), q + 8 * j);
    }
  }
  [[nodiscard]] int scale(int s) const { return 2 * ((scales[s / 2] >> (4 * (s % 2))) & 15) + 1; }
};
static_assert(sizeof(BlockIQ2_XS) == 74);

}  // namespace specdec
