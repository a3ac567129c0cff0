// IQ4_XS: 256 weights of 4 bits, 4.25 bits per weight. w = d * (scale - 32) * kIq4Values[q], one
// scale of 6 bits for 32 weights.
#pragma once

#include <cstdint>

#include "quant/iq4_nl/block.h"

namespace specdec {

// bytes 0-1    d            f16 scale of the scales
// bytes 2-3    scales_h     little-endian u16: bits 2s, 2s+1 are bits 4-5 of scale s (s < 8)
// bytes 4-7    scales_l[4]  bits 0-3 of scale s: the low (s even) or high nibble of byte s / 2
// bytes 8-135  qs[128]      weight 32s + j (j < 16): low nibble of qs[16s + j],
//                           weight 32s + 16 + j: its high nibble
struct BlockIQ4_XS {
  std::uint16_t d;
  std::uint16_t scales_h;
  std::uint8_t scales_l[4];
  std::uint8_t qs[128];

  static constexpr Codes kCodes{
      .zero_shift = 7, .scales = ScaleKind::kSigned32, .values = kIq4Values, .by_value = true};
  void codes(int b, std::uint8_t* q) const {
    for (int k = 0; k < 32; ++k)
      q[k] = static_cast<std::uint8_t>((qs[16 * b + k % 16] >> (4 * (k / 16))) & 15);
  }
  [[nodiscard]] int scale(int s) const {
    const int low = (scales_l[s / 2] >> (4 * (s % 2))) & 15;
    return (low | ((scales_h >> (2 * s)) & 3) << 4) - 32;
  }
};
static_assert(sizeof(BlockIQ4_XS) == 136);

}  // namespace specdec
