// Q4_K: 256 weights of 4 bits, 4.5 bits per weight. w = d * scale * q - dmin * min,
// one (scale, min) of 6 bits each for 32 weights.
#pragma once

#include <cstdint>

#include "quant/codes.h"
#include "quant/k_scales.h"

namespace specdec {

// bytes 0-1     d           f16 scale of the scales
// bytes 2-3     dmin        f16 scale of the mins
// bytes 4-15    scales[12]  s < 4:  scale s = scales[s] & 63, min s = scales[s + 4] & 63
//                           s >= 4: scale s = (scales[s + 4] & 15) | (scales[s - 4] >> 6) << 4,
//                                   min s = (scales[s + 4] >> 4) | (scales[s] >> 6) << 4
// bytes 16-143  qs[128]     weight 64i + l (i < 4, l < 32): low nibble of qs[32i + l],
//                           weight 64i + 32 + l: its high nibble
struct BlockQ4_K {
  std::uint16_t d;
  std::uint16_t dmin;
  std::uint8_t scales[12];
  std::uint8_t qs[128];

  static constexpr Codes kCodes{.scales = ScaleKind::kPairs32};
  void codes(int b, std::uint8_t* q) const {
    for (int k = 0; k < 32; ++k)
      q[k] = static_cast<std::uint8_t>((qs[32 * (b / 2) + k] >> (4 * (b % 2))) & 15);
  }
  [[nodiscard]] int scale(int s) const { return unpack_scale_min(scales, s).scale; }
  [[nodiscard]] int min(int s) const { return unpack_scale_min(scales, s).min; }
};
static_assert(sizeof(BlockQ4_K) == 144);

}  // namespace specdec
