// log, exp and cos(2 pi x) from IEEE additions and multiplications only, so that random choices
// have the same bits on every machine and C library. Accurate to about two units in the last place.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

namespace specdec {

// Natural logarithm of a positive normal number; 0 gives -infinity.
[[nodiscard]] inline double fixed_log(double x) {
  if (x <= 0.0) return -std::numeric_limits<double>::infinity();
  const auto bits = std::bit_cast<std::uint64_t>(x);
  auto exponent = static_cast<std::int64_t>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xFFFFFFFFFFFFFULL) | 0x3FF0000000000000ULL);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  // log(m) = 2 atanh(s) with s = (m - 1) / (m + 1), |s| < 0.172; m - 1 is exact.
  const double f = m - 1.0;
  const double s = f / (2.0 + f);
  const double z = s * s;
  double series = 1.0 / 23.0;
  for (const double c : {1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13, 1.0 / 11, 1.0 / 9,
                         1.0 / 7, 1.0 / 5, 1.0 / 3}) {
    series = series * z + c;
  }
  const double tail = 2.0 * s * z * series;
  const auto e = static_cast<double>(exponent);
  constexpr double kLn2High =
      0x1.62e42fefa3800p-1;  // the low 11 bits are zero: e * kLn2High is exact
  constexpr double kLn2Low = 0x1.ef35793c76730p-45;
  return e * kLn2High + (2.0 * s + (tail + e * kLn2Low));
}

namespace fixed_math {

template <std::size_t kLanes>
struct Lanes {
  using Real [[gnu::vector_size(8 * kLanes)]] = double;
  using Bits [[gnu::vector_size(8 * kLanes)]] = std::uint64_t;
};

// One element or several by the same operations, hence with the same bits. In place, because
// vectors as arguments would make the calling convention depend on the instruction set.
template <typename Real, typename Bits>
[[gnu::always_inline]] inline void exp_in_place(Real& x) {
  constexpr double kLn2High = 0x1.62e42fefa3800p-1;
  constexpr double kLn2Low = 0x1.ef35793c76730p-45;
  constexpr double kRound = 0x1.8p52;  // adding and subtracting it rounds to the nearest integer
  const Real zero{};
  const Real low = zero - 708.0;
  const Real high = zero + 709.0;
  Real clamped = x < low ? low : x;
  clamped = clamped > high ? high : clamped;
  const Real shifted = clamped * 1.4426950408889634 + kRound;
  const Real n = shifted - kRound;
  const Real r = (clamped - n * kLn2High) - n * kLn2Low;  // |r| <= 0.35
  Real p = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  // The low bits of `shifted` hold n as an integer: put it into the exponent.
  const Bits scale = (__builtin_bit_cast(Bits, shifted) + 1023ULL) << 52;
  const Real result = p * __builtin_bit_cast(Real, scale);
  x = x < low ? zero : result;
}

}  // namespace fixed_math

// exp(x) for x <= 709; below -708 the result is 0.
[[nodiscard]] inline double fixed_exp(double x) {
  fixed_math::exp_in_place<double, std::uint64_t>(x);
  return x;
}

// out[i] = exp(in[i] - shift) for i < kLanes, with the bits of fixed_exp. Always inlined: the
// caller's instruction set must have vectors of that width.
template <std::size_t kLanes>
[[gnu::always_inline]] inline void fixed_exp_lanes(const double* in, double shift, double* out) {
  using Real = typename fixed_math::Lanes<kLanes>::Real;
  Real x;
  std::memcpy(&x, in, sizeof(x));
  x -= shift;
  fixed_math::exp_in_place<Real, typename fixed_math::Lanes<kLanes>::Bits>(x);
  std::memcpy(out, &x, sizeof(x));
}

// cos(2 pi x) for x in [0, 1).
[[nodiscard]] inline double fixed_cos_turns(double x) {
  double t = x > 0.5 ? 1.0 - x : x;  // cos is even around half a turn: t in [0, 0.5]
  double sign = 1.0;
  if (t > 0.25) {
    t = 0.5 - t;
    sign = -1.0;
  }
  const double a = t * 6.283185307179586;  // [0, pi/2]
  const double z = a * a;
  double p = -1.0 / 1124000727777607680000.0;  // Taylor, from -1/22! down
  p = p * z + 1.0 / 2432902008176640000.0;
  p = p * z - 1.0 / 6402373705728000.0;
  p = p * z + 1.0 / 20922789888000.0;
  p = p * z - 1.0 / 87178291200.0;
  p = p * z + 1.0 / 479001600.0;
  p = p * z - 1.0 / 3628800.0;
  p = p * z + 1.0 / 40320.0;
  p = p * z - 1.0 / 720.0;
  p = p * z + 1.0 / 24.0;
  p = p * z - 0.5;
  p = p * z + 1.0;
  return sign * p;
}

}  // namespace specdec
