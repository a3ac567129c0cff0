// MXFP4: 32 weights of 4 bits, 4.25 bits per weight, as the OCP microscaling formats have them:
// w = 2^(e - 127) * E2M1[q], here d * kE2m1Values[q] with values doubled and d = 2^(e - 128).
#pragma once

#include <cstdint>

#include "quant/codes.h"

namespace specdec {

inline constexpr std::int8_t kE2m1Values[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                                0, -1, -2, -3, -4, -6, -8, -12};

// byte 0       e       exponent of the scale
// bytes 1-16   qs[16]  byte j: low nibble is weight j, high nibble is weight j + 16
struct BlockMXFP4 {
  std::uint8_t e;
  std::uint8_t qs[16];

  static constexpr Codes kCodes{.zero_shift = 4, .values = kE2m1Values, .by_value = true};
  void codes(int, std::uint8_t* q) const { nibble_codes(*this, q); }
  // The upper half of d as a float; the smallest two are subnormal.
  [[nodiscard]] constexpr std::uint16_t d_bits() const {
    return static_cast<std::uint16_t>(e < 2 ? 0x20 << e : (e - 1) << 7);
  }
};
static_assert(sizeof(BlockMXFP4) == 17);

}  // namespace specdec
