// 16 floats in plain C++, the reference for simd_avx512.h and simd_avx2.h.
#pragma once

// Queries that share a key vector in registers, and F32x16 that fit beside them.
#define SPECDEC_ATTENTION_GROUP 8
#define SPECDEC_ATTENTION_ACCUMULATORS 16

namespace specdec::scalar {

struct F32x16 {
  float v[16];

  template <class F>
  static F32x16 make(F f) {
    F32x16 out;
    for (int i = 0; i < 16; ++i) out.v[i] = f(i);
    return out;
  }
  static F32x16 zero() {
    return make([](int) { return 0.0F; });
  }
  static F32x16 set1(float x) {
    return make([=](int) { return x; });
  }
  static F32x16 load(const float* p) {
    return make([=](int i) { return p[i]; });
  }
  static F32x16 load_f16(const std::uint16_t* p) {
    return make([=](int i) { return f16_to_f32(p[i]); });
  }
  static F32x16 load_i8(const std::int8_t* p) {
    return make([=](int i) { return static_cast<float>(p[i]); });
  }
  void store(float* p) const {
    for (int i = 0; i < 16; ++i) p[i] = v[i];
  }
  void store_f16(std::uint16_t* p) const {
    for (int i = 0; i < 16; ++i) p[i] = f32_to_f16(v[i]);
  }
};

inline F32x16 operator+(F32x16 a, F32x16 b) {
  return F32x16::make([&](int i) { return a.v[i] + b.v[i]; });
}
inline F32x16 operator-(F32x16 a, F32x16 b) {
  return F32x16::make([&](int i) { return a.v[i] - b.v[i]; });
}
inline F32x16 operator*(F32x16 a, F32x16 b) {
  return F32x16::make([&](int i) { return a.v[i] * b.v[i]; });
}
inline F32x16 operator/(F32x16 a, F32x16 b) {
  return F32x16::make([&](int i) { return a.v[i] / b.v[i]; });
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return F32x16::make([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
}
// As the hardware: the second operand of maxps/minps wins when one is NaN.
inline F32x16 max(F32x16 x, F32x16 y) {
  return F32x16::make([&](int i) { return y.v[i] > x.v[i] ? y.v[i] : x.v[i]; });
}
inline F32x16 min(F32x16 x, F32x16 y) {
  return F32x16::make([&](int i) { return y.v[i] < x.v[i] ? y.v[i] : x.v[i]; });
}
inline F32x16 abs(F32x16 x) {
  return F32x16::make([&](int i) { return std::fabs(x.v[i]); });
}
inline F32x16 round(F32x16 x) {
  return F32x16::make([&](int i) { return std::nearbyint(x.v[i]); });
}
// Of a NaN 1, as the vector instructions: what it is multiplied with is one, too.
inline F32x16 exp2_int(F32x16 n) {
  return F32x16::make([&](int i) {
    const std::int32_t exponent = std::isnan(n.v[i]) ? 0 : static_cast<std::int32_t>(n.v[i]);
    return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
  });
}
inline F32x16 select_less(F32x16 x, F32x16 y, F32x16 a, F32x16 b) {
  return F32x16::make([&](int i) { return x.v[i] < y.v[i] ? a.v[i] : b.v[i]; });
}
// A NaN becomes -128, as with the vector instructions.
inline void store_i8(F32x16 x, std::int8_t* p) {
  for (int i = 0; i < 16; ++i) {
    const float r = std::nearbyint(x.v[i]);
    p[i] = static_cast<std::int8_t>(r > 127 ? 127 : r > -128 ? r : -128);
  }
}
inline float max_across(F32x16 x) {
  float largest = x.v[0];
  for (int i = 1; i < 16; ++i) largest = x.v[i] > largest ? x.v[i] : largest;
  return largest;
}
inline bool any_nan(F32x16 x) {
  bool nan = false;
  for (int i = 0; i < 16; ++i) nan |= std::isnan(x.v[i]);
  return nan;
}
inline std::int32_t sum_i8(const std::int8_t* p) {  // of 16
  std::int32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += p[i];
  return sum;
}

}  // namespace specdec::scalar
