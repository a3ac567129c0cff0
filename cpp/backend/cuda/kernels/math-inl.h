// Elementary functions with the bits of backend/cpu/math-inl.h: the same polynomials, step by step.
#pragma once

#include "backend/cuda/kernels/device.h"

namespace specdec::cuda {

// As the vector instructions: y when it is the larger/smaller, x otherwise.
SPECDEC_GPU float max_of(float x, float y) { return y > x ? y : x; }
SPECDEC_GPU float min_of(float x, float y) { return y < x ? y : x; }

SPECDEC_GPU float exp2_int(float n) {
  return from_bits(static_cast<std::uint32_t>(static_cast<std::int32_t>(n) + 127) << 23);
}

// 2^x for x <= 0; 0 below 2^-126, a NaN stays.
SPECDEC_GPU float exp2_nonpositive(float x) {
  if (x != x) return x;
  const float clamped = max_of(x, -126.0F);
  const float n = round_even(clamped);
  const float r = clamped - n;
  float p = 0x1.4308c6p-13F;
  p = fma_of(p, r, 0x1.5f07b4p-10F);
  p = fma_of(p, r, 0x1.3b2ba0p-7F);
  p = fma_of(p, r, 0x1.c6af6ep-5F);
  p = fma_of(p, r, 0x1.ebfbdep-3F);
  p = fma_of(p, r, 0x1.62e430p-1F);
  p = fma_of(p, r, 1.0F);
  return x < -126.0F ? 0.0F : p * exp2_int(n);
}

SPECDEC_GPU float exp_of(float x) {
  if (x != x) return x;
  const float clamped = min_of(max_of(x, -104.0F), 89.0F);
  const float n = round_even(clamped * 0x1.715476p+0F);
  float r = fma_of(n, -0x1.62e400p-1F, clamped);
  r = fma_of(n, -0x1.7f7d1cp-20F, r);
  float p = 0x1.6c69bcp-10F;
  p = fma_of(p, r, 0x1.120b28p-7F);
  p = fma_of(p, r, 0x1.5555bap-5F);
  p = fma_of(p, r, 0x1.5554dep-3F);
  p = fma_of(p, r, 0.5F);
  p = fma_of(p * r, r, r) + 1.0F;
  const float half = round_even(n * 0.5F);
  return p * exp2_int(half) * exp2_int(n - half);
}

SPECDEC_GPU float silu(float x) { return divide(x, 1.0F + exp_of(0.0F - x)); }

SPECDEC_GPU float gelu_erf(float x) {
  if (x != x) return x;
  const float a = min_of(magnitude(x), 15.0F);
  const float s = divide(a - 4.0F, a + 4.0F);
  float p = -0x1.2c6080p-14F;
  p = fma_of(p, s, -0x1.fc114ep-15F);
  p = fma_of(p, s, 0x1.6b4176p-11F);
  p = fma_of(p, s, -0x1.3e8292p-12F);
  p = fma_of(p, s, -0x1.47f78ap-8F);
  p = fma_of(p, s, 0x1.25eeaap-6F);
  p = fma_of(p, s, -0x1.07c292p-5F);
  p = fma_of(p, s, 0x1.d49504p-6F);
  p = fma_of(p, s, 0x1.cabd20p-7F);
  p = fma_of(p, s, -0x1.8c18f0p-4F);
  p = fma_of(p, s, 0x1.e361eap-2F);
  const float square = a * a;
  const float rest = fma_of(a, a, 0.0F - square);
  const float e = exp_of(square * -0.5F);
  const float gauss = fma_of(e, rest * -0.5F, e);
  const float upper = divide(gauss * p, 1.0F + a);
  return x * (x < 0.0F ? upper : 1.0F - upper);
}

SPECDEC_GPU float gelu_tanh(float x) {
  const float slope = fma_of(x * x, -0x1.2444f2p-4F, -0x1.988454p+0F);
  return divide(x, 1.0F + exp_of(x * slope));
}

SPECDEC_GPU float tanh_of(float x) {
  if (x != x) return x;
  const float a = magnitude(x);
  const float square = x * x;
  float p = -0x1.75d1f4p-8F;
  p = fma_of(p, square, 0x1.522178p-6F);
  p = fma_of(p, square, -0x1.b83b2ep-5F);
  p = fma_of(p, square, 0x1.110718p-3F);
  p = fma_of(p, square, -0x1.555532p-2F);
  const float near = fma_of(p * square, x, x);
  const float size = 1.0F - divide(2.0F, 1.0F + exp_of(a + a));
  const float far = x < 0.0F ? 0.0F - size : size;
  return a < 0.625F ? near : far;
}

// Numbers of Activation, which kernels take as an int.
inline constexpr int kActivationNone = 0;
inline constexpr int kActivationSilu = 1;
inline constexpr int kActivationGelu = 2;
inline constexpr int kActivationGeluTanh = 3;

SPECDEC_GPU float activate(int activation, float x) {
  if (activation == kActivationSilu) return silu(x);
  if (activation == kActivationGelu) return gelu_erf(x);
  if (activation == kActivationGeluTanh) return gelu_tanh(x);
  return x;
}

}  // namespace specdec::cuda
