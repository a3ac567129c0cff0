// IQ2_XXS: 256 weights by patterns of 8, 2.0625 bits per weight. w = d / 8 * scale * value, one odd
// scale up to 31 for 32 weights.
#pragma once

#include <cstdint>

#include "quant/grids.h"

namespace specdec {

// bytes 0-1    d       f16 scale of the scales
// bytes 2-65   qs[32]  of 32 weights 8 bytes: the numbers of four patterns, then a u32 with seven
//                      signs of pattern j in bits 7j .. 7j + 6 and (scale - 1) / 2 in bits 28-31
struct BlockIQ2_XXS {
  std::uint16_t d;
  std::uint16_t qs[32];

  static constexpr Codes kCodes{.low_bits = 2,
                                .high_bits = 1,
                                .zero_shift = 6,
                                .scales = ScaleKind::kSigned32,
                                .d_shift = 3,
                                .values = kIq2Values,
                                .by_value = true};
  void codes(int b, std::uint8_t* q) const {
    const std::uint32_t signs = qs[4 * b + 2] | std::uint32_t{qs[4 * b + 3]} << 16;
    for (int j = 0; j < 4; ++j) {
      const int number = (qs[4 * b + j / 2] >> (8 * (j % 2))) & 255;
      eight_codes(kGridIq2Xxs[number], even_signs((signs >> (7 * j)) & 127U), q + 8 * j);
    }
  }
  [[nodiscard]] int scale(int s) const { return 2 * (qs[4 * s + 3] >> 12) + 1; }
};
static_assert(sizeof(BlockIQ2_XXS) == 66);

}  // namespace specdec
