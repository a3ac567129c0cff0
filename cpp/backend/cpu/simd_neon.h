// 16 floats in four registers; see simd_avx512.h.
#pragma once

// Queries that share a key vector in registers, and F32x16 that fit beside them.
#define SPECDEC_ATTENTION_GROUP 6
#define SPECDEC_ATTENTION_ACCUMULATORS 6

namespace specdec::neon {

struct F32x16 {
  float32x4_t v[4];

  template <class F>
  static F32x16 make(F f) {
    return {{f(0), f(1), f(2), f(3)}};
  }
  static F32x16 zero() { return set1(0.0F); }
  static F32x16 set1(float x) {
    const float32x4_t all = vdupq_n_f32(x);
    return {{all, all, all, all}};
  }
  static F32x16 load(const float* p) {
    return make([=](int i) { return vld1q_f32(p + 4 * i); });
  }
  static F32x16 load_f16(const std::uint16_t* p) {
    return make([=](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
  }
  static F32x16 load_i8(const std::int8_t* p) {
    const int8x16_t bytes = vld1q_s8(p);
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes));
    const int16x8_t high = vmovl_high_s8(bytes);
    return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
             vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))}};
  }
  void store(float* p) const {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, v[i]);
  }
  void store_f16(std::uint16_t* p) const {
    for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(v[i])));
  }
};

inline F32x16 operator+(F32x16 x, F32x16 y) {
  return F32x16::make([&](int i) { return vaddq_f32(x.v[i], y.v[i]); });
}
inline F32x16 operator-(F32x16 x, F32x16 y) {
  return F32x16::make([&](int i) { return vsubq_f32(x.v[i], y.v[i]); });
}
inline F32x16 operator*(F32x16 x, F32x16 y) {
  return F32x16::make([&](int i) { return vmulq_f32(x.v[i], y.v[i]); });
}
inline F32x16 operator/(F32x16 x, F32x16 y) {
  return F32x16::make([&](int i) { return vdivq_f32(x.v[i], y.v[i]); });
}
inline F32x16 fma(F32x16 x, F32x16 y, F32x16 z) {
  return F32x16::make([&](int i) { return vfmaq_f32(z.v[i], x.v[i], y.v[i]); });
}
// Comparisons instead of fmax and fmin, whose NaN and zero rules differ from the contract.
inline F32x16 max(F32x16 x, F32x16 y) {
  return F32x16::make([&](int i) { return vbslq_f32(vcgtq_f32(y.v[i], x.v[i]), y.v[i], x.v[i]); });
}
inline F32x16 min(F32x16 x, F32x16 y) {
  return F32x16::make([&](int i) { return vbslq_f32(vcltq_f32(y.v[i], x.v[i]), y.v[i], x.v[i]); });
}
inline F32x16 abs(F32x16 x) {
  return F32x16::make([&](int i) { return vabsq_f32(x.v[i]); });
}
inline F32x16 round(F32x16 x) {
  return F32x16::make([&](int i) { return vrndnq_f32(x.v[i]); });
}
inline F32x16 exp2_int(F32x16 n) {
  return F32x16::make([&](int i) {
    return vreinterpretq_f32_s32(
        vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.v[i]), vdupq_n_s32(127)), 23));
  });
}
inline F32x16 select_less(F32x16 x, F32x16 y, F32x16 p, F32x16 q) {
  return F32x16::make([&](int i) { return vbslq_f32(vcltq_f32(x.v[i], y.v[i]), p.v[i], q.v[i]); });
}
inline void store_i8(F32x16 x, std::int8_t* p) {
  int16x4_t words[4];
  for (int i = 0; i < 4; ++i) words[i] = vqmovn_s32(vcvtnq_s32_f32(x.v[i]));
  vst1q_s8(p, vcombine_s8(vqmovn_s16(vcombine_s16(words[0], words[1])),
                          vqmovn_s16(vcombine_s16(words[2], words[3]))));
}
inline float max_across(F32x16 x) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.v[0], x.v[1]), vmaxq_f32(x.v[2], x.v[3])));
}
inline bool any_nan(F32x16 x) {
  uint32x4_t ordered = vceqq_f32(x.v[0], x.v[0]);
  for (int i = 1; i < 4; ++i) ordered = vandq_u32(ordered, vceqq_f32(x.v[i], x.v[i]));
  return vminvq_u32(ordered) == 0;
}
inline std::int32_t sum_i8(const std::int8_t* p) { return vaddlvq_s8(vld1q_s8(p)); }  // of 16

}  // namespace specdec::neon
