// What the encoders share: the search for scales. Vector code of a fixed width whose lanes are
// rounded by themselves and summed in one order, so the bits are the same on every machine.
//
// Every search minimises sum w (x - y)^2 over a group of weights, where y is what a decoder gives
// back for x. Inputs are finite and of ordinary size; for others the result is some valid block.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "tensor/half.h"

namespace specdec::search {

using Floats = float __attribute__((vector_size(16)));

[[nodiscard]] inline Floats splat(float v) noexcept { return Floats{v, v, v, v}; }
[[nodiscard]] inline float sum_of(Floats v) noexcept { return (v[0] + v[2]) + (v[1] + v[3]); }

// Codes of a format, ends included.
struct Range {
  float low;
  float high;
};

// The nearest code; NaN gives the lowest one.
[[nodiscard]] inline Floats nearest(Floats v, Range range) noexcept {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to a whole number
  const Floats low = splat(range.low);
  const Floats high = splat(range.high);
  v = v > low ? v : low;
  v = v < high ? v : high;
  return (v + kRound) - kRound;
}

[[nodiscard]] inline int nearest_int(float v) noexcept {
  constexpr float kRound = 12582912.0F;
  return static_cast<int>((v + kRound) - kRound);
}
// As stored in half precision. The tiny ones, of which few are left, are rounded away from zero: a
// super-block can make up for a scale that is too large, not for one that is lost.
[[nodiscard]] inline float block_scale(float v) noexcept {
  const float rounded = f16_to_f32(f32_to_f16(v));
  constexpr float kSmallestNormal = 0x1.0p-14F;
  constexpr float kStep = 0x1.0p-24F;
  if (std::fabs(v) >= kSmallestNormal || std::fabs(rounded) >= std::fabs(v)) return rounded;
  return rounded + std::copysign(kStep, v);
}
[[nodiscard]] inline float inverse_of(float scale) noexcept {
  return scale == 0.0F ? 0.0F : 1.0F / scale;
}

// How much of the spread of the weights counts beside their own size (see load_group). Perplexity
// does not tell 1 from infinity (docs/quantize.md); larger ones have the smaller squared error.
inline constexpr float kSpread = 4.0F;

// kN weights and how much the error of each counts.
template <int kN>
struct Group {
  static constexpr int kParts = kN / 4;
  Floats x[kParts];
  Floats w[kParts];
  float low = 0;     // smallest x
  float high = 0;    // largest x
  float sum_w = 0;   // of w
  float sum_x = 0;   // of w x
  float sum_xx = 0;  // of w x x
};

// `spread`: added to |x| to make the weight of x, so that large ones count a little more.
template <int kN>
[[nodiscard]] Group<kN> load_group(const float* src, float spread) noexcept {
  Group<kN> group;
  std::memcpy(group.x, src, sizeof group.x);
  Floats low = group.x[0];
  Floats high = group.x[0];
  Floats sum_w = {};
  Floats sum_x = {};
  Floats sum_xx = {};
  for (int p = 0; p < group.kParts; ++p) {
    const Floats x = group.x[p];
    const Floats w = (x < 0.0F ? -x : x) + spread;
    group.w[p] = w;
    low = x < low ? x : low;
    high = x > high ? x : high;
    sum_w += w;
    sum_x += w * x;
    sum_xx += w * x * x;
  }
  group.low = std::min(std::min(low[0], low[1]), std::min(low[2], low[3]));
  group.high = std::max(std::max(high[0], high[1]), std::max(high[2], high[3]));
  group.sum_w = sum_of(sum_w);
  group.sum_x = sum_of(sum_x);
  group.sum_xx = sum_of(sum_xx);
  return group;
}

// Root of the mean square of n values (a multiple of 4).
[[nodiscard]] inline float rms_of(const float* src, int n) noexcept {
  Floats sum = {};
  for (int i = 0; i < n; i += 4) {
    Floats x;
    std::memcpy(&x, src + i, sizeof x);
    sum += x * x;
  }
  return std::sqrt(sum_of(sum) / static_cast<float>(n));
}

// ---------------------------------------------------------------- y = scale q

struct ScaleFit {
  float scale = 0;
  float gain = 0;  // what the best scale for these codes takes off sum w x x
};

// The codes that 1/inverse gives, and the best scale for them.
template <int kN>
[[nodiscard]] ScaleFit fit_scale(const Group<kN>& group, float inverse, Range range) noexcept {
  Floats dot = {};
  Floats square = {};
  for (int p = 0; p < group.kParts; ++p) {
    const Floats q = nearest(group.x[p] * inverse, range);
    const Floats wq = group.w[p] * q;
    dot += group.x[p] * wq;
    square += wq * q;
  }
  const float d = sum_of(dot);
  const float s = sum_of(square);
  if (!(s > 0)) return {};
  return {d / s, d * d / s};
}

// Error with the nearest codes at exactly this scale.
template <int kN>
[[nodiscard]] float scale_error(const Group<kN>& group, float scale, Range range) noexcept {
  const float inverse = inverse_of(scale);
  Floats sum = {};
  for (int p = 0; p < group.kParts; ++p) {
    const Floats e = group.x[p] - nearest(group.x[p] * inverse, range) * scale;
    sum += group.w[p] * e * e;
  }
  return sum_of(sum);
}

// A good scale of any value. `nominal`: the code that the value of largest magnitude gets; tried
// are n_steps positions from `first` to `last` for it.
struct Candidates {
  float first;
  float last;
  int n_steps;
};

template <int kN>
[[nodiscard]] float search_scale(const Group<kN>& group, Range range,
                                 const Candidates& candidates) noexcept {
  const float extreme = -group.low > group.high ? group.low : group.high;
  if (extreme == 0.0F) return 0.0F;
  ScaleFit best;
  const float step =
      (candidates.last - candidates.first) / static_cast<float>(candidates.n_steps - 1);
  for (int i = 0; i < candidates.n_steps; ++i) {
    const float code = candidates.first + step * static_cast<float>(i);
    const ScaleFit fit = fit_scale(group, code / extreme, range);
    if (fit.gain > best.gain) best = fit;
  }
  // The scale moved; so may a code or two.
  const ScaleFit again = fit_scale(group, inverse_of(best.scale), range);
  return again.gain > best.gain ? again.scale : best.scale;
}

// ---------------------------------------------------------------- y = scale q + offset

struct LineFit {
  float scale = 0;
  float offset = 0;
  float error = 0;
};

enum class Offset { kAny, kNotPositive };

// The codes that this scale and offset give, and the best scale and offset for them.
template <int kN>
[[nodiscard]] LineFit fit_line(const Group<kN>& group, float inverse, float offset, Range range,
                               Offset sign) noexcept {
  Floats sq = {};
  Floats sqq = {};
  Floats sqx = {};
  for (int p = 0; p < group.kParts; ++p) {
    const Floats q = nearest((group.x[p] - offset) * inverse, range);
    const Floats wq = group.w[p] * q;
    sq += wq;
    sqq += wq * q;
    sqx += wq * group.x[p];
  }
  const float q = sum_of(sq);
  const float qq = sum_of(sqq);
  const float qx = sum_of(sqx);
  const float determinant = group.sum_w * qq - q * q;
  LineFit fit;
  if (determinant > 1e-6F * group.sum_w * qq) {
    fit.scale = (group.sum_w * qx - q * group.sum_x) / determinant;
    fit.offset = (qq * group.sum_x - q * qx) / determinant;
  } else {  // all codes equal
    fit.offset = group.sum_w > 0 ? group.sum_x / group.sum_w : 0.0F;
  }
  if (fit.scale < 0.0F) fit = {};
  if (sign == Offset::kNotPositive && fit.offset > 0.0F) {
    fit.offset = 0.0F;
    fit.scale = qq > 0 ? std::max(qx / qq, 0.0F) : 0.0F;
  }
  fit.error = group.sum_xx - 2.0F * (fit.scale * qx + fit.offset * group.sum_x) +
              fit.scale * fit.scale * qq + 2.0F * fit.scale * fit.offset * q +
              fit.offset * fit.offset * group.sum_w;
  return fit;
}

// Error with the nearest codes at exactly this scale and offset.
template <int kN>
[[nodiscard]] float line_error(const Group<kN>& group, float scale, float offset,
                               Range range) noexcept {
  const float inverse = inverse_of(scale);
  Floats sum = {};
  for (int p = 0; p < group.kParts; ++p) {
    const Floats centred = group.x[p] - offset;
    const Floats e = centred - nearest(centred * inverse, range) * scale;
    sum += group.w[p] * e * e;
  }
  return sum_of(sum);
}

// A good scale and offset: ranges of `from` to `to` times that of the values, around their middle.
struct Stretches {
  float from;
  float to;
  int n_steps;
};

template <int kN>
[[nodiscard]] LineFit search_line(const Group<kN>& group, Range range, Offset sign,
                                  const Stretches& stretches) noexcept {
  float low = group.low;
  float high = group.high;
  if (sign == Offset::kNotPositive) {
    low = std::min(low, 0.0F);
    high = std::max(high, 0.0F);
  }
  LineFit best;
  best.error = group.sum_xx;
  if (!(high > low)) {  // one value: exact as offset, or with code 0 and the scale of its own size
    best.offset = low;
    best.error = line_error(group, 0.0F, low, range);
    return best;
  }
  const float middle = 0.5F * (low + high);
  const float step = (stretches.to - stretches.from) / static_cast<float>(stretches.n_steps - 1);
  for (int i = 0; i < stretches.n_steps; ++i) {
    const float width = (high - low) * (stretches.from + step * static_cast<float>(i));
    float offset = middle - 0.5F * width;
    if (sign == Offset::kNotPositive) offset = std::min(offset, 0.0F);
    const LineFit fit = fit_line(group, range.high / width, offset, range, sign);
    if (fit.error < best.error) best = fit;
  }
  for (int i = 0; i < 2; ++i) {
    const LineFit again = fit_line(group, inverse_of(best.scale), best.offset, range, sign);
    if (!(again.error < best.error)) break;
    best = again;
  }
  return best;
}

// ---------------------------------------------------------------- codes

// Codes of src at the final scale and offset, minus range.low: 0 .. high - low.
template <int kN>
void store_codes(const Group<kN>& group, float scale, float offset, Range range,
                 std::uint8_t* codes) noexcept {
  const float inverse = inverse_of(scale);
  for (int p = 0; p < group.kParts; ++p) {
    const Floats q = nearest((group.x[p] - offset) * inverse, range) - range.low;
    for (int l = 0; l < 4; ++l) codes[4 * p + l] = static_cast<std::uint8_t>(q[l]);
  }
}

}  // namespace specdec::search
