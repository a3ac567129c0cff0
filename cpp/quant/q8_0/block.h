// Q8_0: 32 weights of 8 bits, 8.5 bits per weight. w = d * q.
#pragma once

#include <cstdint>

#include "quant/codes.h"

namespace specdec {

// bytes 0-1    d       f16 scale
// bytes 2-33   qs[32]  signed weights
struct BlockQ8_0 {
  std::uint16_t d;
  std::int8_t qs[32];

  static constexpr Codes kCodes{.low_bits = 8, .zero_shift = 7};
  void codes(int, std::uint8_t* q) const {
    for (int k = 0; k < 32; ++k) q[k] = static_cast<std::uint8_t>(qs[k] + 128);
  }
};
static_assert(sizeof(BlockQ8_0) == 34);

}  // namespace specdec
