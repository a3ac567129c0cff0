// Rounding shared by the reference quantisers.
#pragma once

namespace specdec {

// Truncates to a code of 0..max; NaN gives 0.
[[nodiscard]] inline int quantize_code(float value, int max) {
  if (!(value > 0.0F)) return 0;
  return value < static_cast<float>(max) ? static_cast<int>(value) : max;
}

}  // namespace specdec
