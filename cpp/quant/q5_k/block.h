// Q5_K: 256 weights of 5 bits, 5.5 bits per weight. w = d * scale * q - dmin * min,
// one (scale, min) of 6 bits each for 32 weights.
#pragma once

#include <cstdint>

#include "quant/codes.h"
#include "quant/k_scales.h"

namespace specdec {

// bytes 0-1     d           f16 scale of the scales
// bytes 2-3     dmin        f16 scale of the mins
// bytes 4-15    scales[12]  packed as in Q4_K
// bytes 16-47   qh[32]      weight 32i + l (i < 8, l < 32): bit i of qh[l] is bit 4 of q
// bytes 48-175  qs[128]     bits 0-3 of q, packed as in Q4_K
struct BlockQ5_K {
  std::uint16_t d;
  std::uint16_t dmin;
  std::uint8_t scales[12];
  std::uint8_t qh[32];
  std::uint8_t qs[128];

  static constexpr Codes kCodes{.high_bits = 1, .scales = ScaleKind::kPairs32};
  void codes(int b, std::uint8_t* q) const {
    for (int k = 0; k < 32; ++k) {
      const int low = (qs[32 * (b / 2) + k] >> (4 * (b % 2))) & 15;
      q[k] = static_cast<std::uint8_t>(low | ((qh[k] >> b) & 1) << 4);
    }
  }
  [[nodiscard]] int scale(int s) const { return unpack_scale_min(scales, s).scale; }
  [[nodiscard]] int min(int s) const { return unpack_scale_min(scales, s).min; }
};
static_assert(sizeof(BlockQ5_K) == 176);

}  // namespace specdec
