// IQ3_S: 256 weights by patterns of 4, 3.4375 bits per weight. w = d * scale * value, one odd scale
// up to 31 for 32 weights.
#pragma once

#include <cstdint>

#include "quant/grids.h"

namespace specdec {

inline constexpr std::int8_t kIq3SValues[16] = {1,  3,  5,  7,  9,  11,  13,  15,
                                                -1, -3, -5, -7, -9, -11, -13, -15};

// bytes 0-1      d          f16 scale of the scales
// bytes 2-65     qs[64]     bits 0-7 of the number of the pattern of weights 4i .. 4i + 3
// bytes 66-73    qh[8]      bit 8 of pattern 8b + j: bit j of byte b
// bytes 74-105   signs[32]  signs of weights 8i .. 8i + 7
// bytes 106-109  scales[4]  (scale - 1) / 2 of 32 weights: the low (s even) or high nibble of byte
//                           s / 2
struct BlockIQ3_S {
  std::uint16_t d;
  std::uint8_t qs[64];
  std::uint8_t qh[8];
  std::uint8_t signs[32];
  std::uint8_t scales[4];

  static constexpr Codes kCodes{
      .zero_shift = 4, .scales = ScaleKind::kSigned32, .values = kIq3SValues, .by_value = true};
  void codes(int b, std::uint8_t* q) const {
    for (int j = 0; j < 8; ++j) {
      const int number = qs[8 * b + j] | ((qh[b] >> j) & 1) << 8;
      four_codes(kGridIq3S[number], signs[4 * b + j / 2] >> (4 * (j % 2)), q + 4 * j);
    }
  }
  [[nodiscard]] int scale(int s) const { return 2 * ((scales[s / 2] >> (4 * (s % 2))) & 15) + 1; }
};
static_assert(sizeof(BlockIQ3_S) == 110);

}  // namespace specdec
