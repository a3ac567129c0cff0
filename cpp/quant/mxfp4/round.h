// Rounding to MXFP4, shared by its two quantisers.
#pragma once

#include <cmath>

#include "quant/mxfp4/block.h"
#include "tensor/half.h"

namespace specdec {

// The first of the nearest values at scale d.
[[nodiscard]] inline int nearest_e2m1(float x, float d) noexcept {
  int best = 0;
  float least = std::fabs(x);
  for (int q = 1; q < 16; ++q) {
    const float error = std::fabs(d * static_cast<float>(kE2m1Values[q]) - x);
    if (error < least) {
      least = error;
      best = q;
    }
  }
  return best;
}

// The exponent with which the largest magnitude of 32 weights gets a code from 4 up.
[[nodiscard]] inline int mxfp4_exponent(const float* x) noexcept {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::fmax(largest, std::fabs(x[i]));
  if (!(largest > 0)) return 0;
  const int exponent = std::isfinite(largest) ? std::ilogb(largest) : 127;
  return exponent + 125 < 0 ? 0 : exponent + 125;
}

inline void store_mxfp4(const float* x, int e, BlockMXFP4* block) noexcept {
  block->e = static_cast<std::uint8_t>(e);
  const float d = bf16_to_f32(block->d_bits());
  for (int j = 0; j < 16; ++j) {
    block->qs[j] =
        static_cast<std::uint8_t>(nearest_e2m1(x[j], d) | nearest_e2m1(x[j + 16], d) << 4);
  }
}

}  // namespace specdec
