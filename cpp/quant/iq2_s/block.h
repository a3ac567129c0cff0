// IQ2_S: 256 weights by patterns of 8, 2.5625 bits per weight. w = d / 8 * scale * value, one odd
// scale up to 31 for 16 weights.
#pragma once

#include <cstdint>

#include "quant/grids.h"

namespace specdec {

// bytes 0-1    d          f16 scale of the scales
// bytes 2-33   qs[32]     bits 0-7 of the number of the pattern of weights 8i .. 8i + 7
// bytes 34-65  signs[32]  their signs
// bytes 66-73  qh[8]      bits 8-9 of pattern 4b + j: bits 2j, 2j+1 of byte b
// bytes 74-81  scales[8]  (scale - 1) / 2 of 16 weights: the low (s even) or high nibble of byte
// s/2
struct BlockIQ2_S {
  std::uint16_t d;
  std::uint8_t qs[32];
  std::uint8_t signs[32];
  std::uint8_t qh[8];
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
      const int number = qs[4 * b + j] | ((qh[b] >> (2 * j)) & 3) << 8;
      eight_codes(kGridIq2S[number], signs[4 * b + j], q + 8 * j);
    }
  }
  [[nodiscard]] int scale(int s) const { return 2 * ((scales[s / 2] >> (4 * (s % 2))) & 15) + 1; }
};
static_assert(sizeof(BlockIQ2_S) == 82);

}  // namespace specdec
