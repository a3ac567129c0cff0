// Q6_K: 256 weights of 6 bits, 6.5625 bits per weight. w = d * scale * (q - 32),
// one signed scale of 8 bits for 16 weights.
#pragma once

#include <cstdint>

#include "quant/codes.h"

namespace specdec {

// bytes 0-127    ql[128]     weight 128h + 32j + l (h < 2, j < 4, l < 32): bits 0-3 of q are the
//                            low (j < 2) or high nibble of ql[64h + 32(j % 2) + l]
// bytes 128-191  qh[64]      bits 4-5 of q are bits 2j, 2j+1 of qh[32h + l]
// bytes 192-207  scales[16]  byte s is for weights 16s..16s+15
// bytes 208-209  d           f16 scale of the scales
struct BlockQ6_K {
  std::uint8_t ql[128];
  std::uint8_t qh[64];
  std::int8_t scales[16];
  std::uint16_t d;

  static constexpr Codes kCodes{.high_bits = 2, .zero_shift = 5, .scales = ScaleKind::kSigned16};
  void codes(int b, std::uint8_t* q) const {
    const std::uint8_t* low = ql + 64 * (b / 4) + 32 * (b % 2);
    const std::uint8_t* high = qh + 32 * (b / 4);
    for (int k = 0; k < 32; ++k) {
      q[k] = static_cast<std::uint8_t>(((low[k] >> (4 * (b / 2 % 2))) & 15) |
                                       ((high[k] >> (2 * (b % 4))) & 3) << 4);
    }
  }
  [[nodiscard]] int scale(int s) const { return scales[s]; }
};
static_assert(sizeof(BlockQ6_K) == 210);

}  // namespace specdec
