// Elementary functions over F32x16. Included inside a target region after a simd_*.h.
#pragma once

namespace specdec::SPECDEC_KERNELS {
namespace {

// One fixed tree, so that the sum does not depend on the instruction set.
inline float sum_lanes(F32x16 x) {
  float lane[16];
  x.store(lane);
  for (int i = 0; i < 8; ++i) lane[i] += lane[i + 8];
  for (int i = 0; i < 4; ++i) lane[i] += lane[i + 4];
  return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

// A NaN may get lost.
inline float max_lanes(F32x16 x) {
  float lane[16];
  x.store(lane);
  for (int i = 0; i < 8; ++i) lane[i] = lane[i] < lane[i + 8] ? lane[i + 8] : lane[i];
  for (int i = 0; i < 4; ++i) lane[i] = lane[i] < lane[i + 4] ? lane[i + 4] : lane[i];
  for (int i = 0; i < 2; ++i) lane[i] = lane[i] < lane[i + 2] ? lane[i + 2] : lane[i];
  return lane[0] < lane[1] ? lane[1] : lane[0];
}

// The first n < 16 floats, the rest filled.
inline F32x16 load_partial(const float* p, std::int64_t n, float fill) {
  float lane[16];
  for (std::int64_t i = 0; i < 16; ++i) lane[i] = i < n ? p[i] : fill;
  return F32x16::load(lane);
}

inline void store_partial(F32x16 x, float* p, std::int64_t n) {
  float lane[16];
  x.store(lane);
  for (std::int64_t i = 0; i < n; ++i) p[i] = lane[i];
}

// 2^x for x <= 0, relative error below 1.5e-7; 0 below 2^-126, a NaN stays.
inline F32x16 exp2_nonpositive(F32x16 x) {
  const F32x16 lowest = F32x16::set1(-126.0F);
  const F32x16 clamped = max(x, lowest);
  const F32x16 n = round(clamped);
  const F32x16 r = clamped - n;  // [-0.5, 0.5], exact
  F32x16 p = F32x16::set1(0x1.4308c6p-13F);
  p = fma(p, r, F32x16::set1(0x1.5f07b4p-10F));
  p = fma(p, r, F32x16::set1(0x1.3b2ba0p-7F));
  p = fma(p, r, F32x16::set1(0x1.c6af6ep-5F));
  p = fma(p, r, F32x16::set1(0x1.ebfbdep-3F));
  p = fma(p, r, F32x16::set1(0x1.62e430p-1F));
  p = fma(p, r, F32x16::set1(1.0F));
  return select_less(x, lowest, F32x16::zero(), p * exp2_int(n));
}

// e^x within 1 ulp (subnormal results too); overflows to infinity, a NaN stays.
inline F32x16 exp(F32x16 x) {
  const F32x16 clamped = min(max(x, F32x16::set1(-104.0F)), F32x16::set1(89.0F));
  const F32x16 n = round(clamped * F32x16::set1(0x1.715476p+0F));
  F32x16 r = fma(n, F32x16::set1(-0x1.62e400p-1F), clamped);  // ln 2 in two parts
  r = fma(n, F32x16::set1(-0x1.7f7d1cp-20F), r);
  F32x16 p = F32x16::set1(0x1.6c69bcp-10F);
  p = fma(p, r, F32x16::set1(0x1.120b28p-7F));
  p = fma(p, r, F32x16::set1(0x1.5555bap-5F));
  p = fma(p, r, F32x16::set1(0x1.5554dep-3F));
  p = fma(p, r, F32x16::set1(0.5F));
  p = fma(p * r, r, r) + F32x16::set1(1.0F);
  // In two steps, because n reaches -150 and 128.
  const F32x16 half = round(n * F32x16::set1(0.5F));
  return p * exp2_int(half) * exp2_int(n - half);
}

inline F32x16 silu(F32x16 x) { return x / (F32x16::set1(1.0F) + exp(F32x16::zero() - x)); }

// x * Phi(x) with the exact normal distribution. The upper tail is
// Q(a) = exp(-a^2/2) P(s) / (1 + a), s = (a - 4) / (a + 4), P fitted to 2e-9.
inline F32x16 gelu_erf(F32x16 x) {
  const F32x16 one = F32x16::set1(1.0F);
  const F32x16 a = min(abs(x), F32x16::set1(15.0F));
  const F32x16 s = (a - F32x16::set1(4.0F)) / (a + F32x16::set1(4.0F));
  F32x16 p = F32x16::set1(-0x1.2c6080p-14F);
  p = fma(p, s, F32x16::set1(-0x1.fc114ep-15F));
  p = fma(p, s, F32x16::set1(0x1.6b4176p-11F));
  p = fma(p, s, F32x16::set1(-0x1.3e8292p-12F));
  p = fma(p, s, F32x16::set1(-0x1.47f78ap-8F));
  p = fma(p, s, F32x16::set1(0x1.25eeaap-6F));
  p = fma(p, s, F32x16::set1(-0x1.07c292p-5F));
  p = fma(p, s, F32x16::set1(0x1.d49504p-6F));
  p = fma(p, s, F32x16::set1(0x1.cabd20p-7F));
  p = fma(p, s, F32x16::set1(-0x1.8c18f0p-4F));
  p = fma(p, s, F32x16::set1(0x1.e361eap-2F));
  // The rounding error of a^2 would otherwise be multiplied by a^2 in the exponential.
  const F32x16 square = a * a;
  const F32x16 rest = fma(a, a, F32x16::zero() - square);
  const F32x16 e = exp(square * F32x16::set1(-0.5F));
  const F32x16 gauss = fma(e, rest * F32x16::set1(-0.5F), e);
  const F32x16 upper = gauss * p / (one + a);
  return x * select_less(x, F32x16::zero(), upper, one - upper);
}

// x / 2 (1 + tanh(u)) as x / (1 + e^(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
inline F32x16 gelu_tanh(F32x16 x) {
  const F32x16 square = x * x;
  const F32x16 slope = fma(square, F32x16::set1(-0x1.2444f2p-4F), F32x16::set1(-0x1.988454p+0F));
  return x / (F32x16::set1(1.0F) + exp(x * slope));
}

inline F32x16 sigmoid(F32x16 x) {
  const F32x16 one = F32x16::set1(1.0F);
  return one / (one + exp(F32x16::zero() - x));
}

// ln(1 + e^x) as max(x, 0) + 2 artanh(t / (2 + t)), t = e^-|x|.
inline F32x16 softplus(F32x16 x) {
  const F32x16 t = exp(F32x16::zero() - abs(x));
  const F32x16 z = t / (t + F32x16::set1(2.0F));
  const F32x16 square = z * z;  // up to 1/9
  F32x16 p = F32x16::set1(1.0F / 15.0F);
  for (int n = 13; n > 0; n -= 2) p = fma(p, square, F32x16::set1(1.0F / static_cast<float>(n)));
  return max(x, F32x16::zero()) + (z + z) * p;
}

// Within 2 ulp: a polynomial near 0, where 1 - 2 / (1 + e^2x) would cancel.
inline F32x16 tanh(F32x16 x) {
  const F32x16 one = F32x16::set1(1.0F);
  const F32x16 a = abs(x);
  const F32x16 square = x * x;
  F32x16 p = F32x16::set1(-0x1.75d1f4p-8F);
  p = fma(p, square, F32x16::set1(0x1.522178p-6F));
  p = fma(p, square, F32x16::set1(-0x1.b83b2ep-5F));
  p = fma(p, square, F32x16::set1(0x1.110718p-3F));
  p = fma(p, square, F32x16::set1(-0x1.555532p-2F));
  const F32x16 near = fma(p * square, x, x);
  const F32x16 size = one - F32x16::set1(2.0F) / (one + exp(a + a));
  const F32x16 far = select_less(x, F32x16::zero(), F32x16::zero() - size, size);
  return select_less(a, F32x16::set1(0.625F), near, far);
}

inline F32x16 apply(Activation activation, F32x16 x) {
  switch (activation) {
    case Activation::kSilu:
      return silu(x);
    case Activation::kGeluErf:
      return gelu_erf(x);
    case Activation::kGeluTanh:
      return gelu_tanh(x);
    case Activation::kSigmoid:
      return sigmoid(x);
    case Activation::kClampedSwiglu:  // not of one number
    case Activation::kNone:
      break;
  }
  return x;
}

}  // namespace
}  // namespace specdec::SPECDEC_KERNELS
