// The grids of the IQ1, IQ2 and IQ3 formats: a few hundred patterns of 4 or 8 magnitudes, of which
// a block stores the numbers. Facts of the file format (grids.inc is generated).
#pragma once

#include <bit>
#include <cstdint>

#include "quant/codes.h"

namespace specdec {

// Eight magnitudes in two bits each, or four in four bits each; the first is lowest.
extern const std::uint16_t kGridIq1[2048];
extern const std::uint16_t kGridIq2Xxs[256];
extern const std::uint16_t kGridIq2Xs[512];
extern const std::uint16_t kGridIq2S[1024];
extern const std::uint16_t kGridIq3Xxs[256];
extern const std::uint16_t kGridIq3S[512];

// What the codes stand for: magnitude number 0-2 of IQ2, with the sign above it.
inline constexpr std::int8_t kIq2Values[16] = {8, 25, 43, 0, -8, -25, -43, 0,
                                               0, 0,  0,  0, 0,  0,   0,   0};

// Trit number 0-2 of IQ1 in eighths, plus one eighth or minus one.
inline constexpr std::int8_t kIq1Values[16] = {-7, 1, 9, 0, -9, -1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0};

// Signs of 8 weights whose product is positive, from those of the first 7.
[[nodiscard]] inline unsigned even_signs(unsigned seven) {
  return seven | (static_cast<unsigned>(std::popcount(seven)) & 1U) << 7;
}

// q[k] = magnitude k | bit k of signs << 2, of 8 weights.
inline void eight_codes(std::uint16_t pattern, unsigned signs, std::uint8_t* q) {
  for (int k = 0; k < 8; ++k)
    q[k] = static_cast<std::uint8_t>(((pattern >> (2 * k)) & 3) | ((signs >> k) & 1U) << 2);
}

// q[k] = magnitude k | bit k of signs << 3, of 4 weights.
inline void four_codes(std::uint16_t pattern, unsigned signs, std::uint8_t* q) {
  for (int k = 0; k < 4; ++k)
    q[k] = static_cast<std::uint8_t>(((pattern >> (4 * k)) & 15) | ((signs >> k) & 1U) << 3);
}

}  // namespace specdec
