// IQ3_XXS: 256 weights by patterns of 4, 3.0625 bits per weight. w = d / 4 * scale * value, one odd
// scale up to 31 for 32 weights.
#pragma once

#include <cstdint>

#include "quant/grids.h"

namespace specdec {

inline constexpr std::int8_t kIq3XxsValues[16] = {4,  12,  20,  28,  36,  44,  52,  62,
                                                  -4, -12, -20, -28, -36, -44, -52, -62};

// bytes 0-1    d           f16 scale of the scales
// bytes 2-65   qs[64]      the number of the pattern of weights 4i .. 4i + 3
// bytes 66-97  signs[8][2] of 32 weights a u32: seven signs of weights 8j .. 8j + 7 in bits 7j ..
//                          7j + 6, and (scale - 1) / 2 in bits 28-31
struct BlockIQ3_XXS {
  std::uint16_t d;
  std::uint8_t qs[64];
  std::uint16_t signs[8][2];

  static constexpr Codes kCodes{.zero_shift = 6,
                                .scales = ScaleKind::kSigned32,
                                .d_shift = 2,
                                .values = kIq3XxsValues,
                                .by_value = true};
  void codes(int b, std::uint8_t* q) const {
    const std::uint32_t all = signs[b][0] | std::uint32_t{signs[b][1]} << 16;
    for (int j = 0; j < 8; ++j) {
      const unsigned eight = even_signs((all >> (7 * (j / 2))) & 127U);
      four_codes(kGridIq3Xxs[qs[8 * b + j]], eight >> (4 * (j % 2)), q + 4 * j);
    }
  }
  [[nodiscard]] int scale(int s) const { return 2 * (signs[s][1] >> 12) + 1; }
};
static_assert(sizeof(BlockIQ3_XXS) == 98);

}  // namespace specdec
