// Searches for formats whose codes stand for values of a list: 16 ascending whole numbers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "quant/search.h"

namespace specdec::search {

// The code of the value nearest to v, of ascending `values`; NaN gives 0.
[[nodiscard]] inline int nearest_value(float v, const std::int8_t* values) noexcept {
  int code = 0;
  for (int i = 1; i < 16; ++i) {
    // Halfway: the lower one.
    if (2.0F * v > static_cast<float>(values[i - 1] + values[i])) code = i;
  }
  return code;
}

struct ValueFit {
  float dot = 0;     // sum w x value
  float square = 0;  // sum w value value

  [[nodiscard]] float gain() const { return square > 0 ? dot * dot / square : 0.0F; }
  [[nodiscard]] float scale() const { return square > 0 ? dot / square : 0.0F; }
};

// The codes that 1 / inverse gives, and what they are worth. w(x) = |x| + spread.
[[nodiscard]] inline ValueFit fit_values(const float* x, int n, float spread, float inverse,
                                         const std::int8_t* values) noexcept {
  ValueFit fit;
  for (int i = 0; i < n; ++i) {
    const auto value = static_cast<float>(values[nearest_value(x[i] * inverse, values)]);
    const float weighted = (std::fabs(x[i]) + spread) * value;
    fit.dot += weighted * x[i];
    fit.square += weighted * value;
  }
  return fit;
}

// Sum of w (x - scale value)^2 with the nearest values at exactly this scale.
[[nodiscard]] inline float value_error(const float* x, int n, float spread, float scale,
                                       const std::int8_t* values) noexcept {
  const float inverse = inverse_of(scale);
  float sum = 0;
  for (int i = 0; i < n; ++i) {
    const float e =
        x[i] - scale * static_cast<float>(values[nearest_value(x[i] * inverse, values)]);
    sum += (std::fabs(x[i]) + spread) * e * e;
  }
  return sum;
}

// A good scale of any sign for n weights: the one of largest magnitude becomes the first or the
// last value, or something near them.
[[nodiscard]] inline float search_value_scale(const float* x, int n, float spread,
                                              const std::int8_t* values) noexcept {
  float extreme = 0;
  for (int i = 0; i < n; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  if (!(std::fabs(extreme) > 0)) return 0.0F;
  constexpr int kSteps = 9;
  ValueFit best;
  for (const int end : {0, 15}) {
    for (int i = 0; i < kSteps; ++i) {
      const float stretch = 0.84F + 0.04F * static_cast<float>(i);
      const float inverse = static_cast<float>(values[end]) * stretch / extreme;
      const ValueFit fit = fit_values(x, n, spread, inverse, values);
      if (fit.gain() > best.gain()) best = fit;
    }
  }
  const ValueFit again = fit_values(x, n, spread, inverse_of(best.scale()), values);
  return again.gain() > best.gain() ? again.scale() : best.scale();
}

}  // namespace specdec::search
