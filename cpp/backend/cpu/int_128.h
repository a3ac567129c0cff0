// What int_neon.h and int_i8mm.h share: 4 output rows per register, four passes make a tile, so
// that 8 columns of accumulators and sums and a decoded block share the 32 registers.
#pragma once

namespace specdec::SPECDEC_KERNELS {

struct Int128 {
  static constexpr int kLanes = 4;
  using Bytes = uint8x16_t;
  using I32 = int32x4_t;
  using F32 = float32x4_t;

  SPECDEC_INLINE static Bytes load(const std::uint8_t* line) { return vld1q_u8(line); }
  SPECDEC_INLINE static Bytes low4(Bytes x) { return vandq_u8(x, vdupq_n_u8(0x0F)); }
  SPECDEC_INLINE static Bytes high4(Bytes x) { return vshrq_n_u8(x, 4); }
  template <int kShift>
  SPECDEC_INLINE static Bytes shift(Bytes x) {
    if constexpr (kShift > 0) return vshrq_n_u8(x, kShift);
    if constexpr (kShift < 0) return vshlq_n_u8(x, -kShift);
    return x;
  }
  template <int kShift, int kMask>
  SPECDEC_INLINE static Bytes bits(Bytes x) {
    return vandq_u8(shift<kShift>(x), vdupq_n_u8(kMask));
  }
  template <int kShift, int kMask>
  SPECDEC_INLINE static I32 bits(I32 x) {
    return vreinterpretq_s32_u8(bits<kShift, kMask>(vreinterpretq_u8_s32(x)));
  }
  template <int kShift, int kMask>
  SPECDEC_INLINE static Bytes or_bits(Bytes q, Bytes x) {
    return vorrq_u8(q, bits<kShift, kMask>(x));
  }

  SPECDEC_INLINE static Bytes load_table(const std::uint8_t* p) { return vld1q_u8(p); }
  SPECDEC_INLINE static Bytes lookup(Bytes table, Bytes x) { return vqtbl1q_u8(table, x); }

  SPECDEC_INLINE static I32 load_u8(const std::uint8_t* p) {
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(load4(p)))));
  }
  SPECDEC_INLINE static I32 load_i8(const std::uint8_t* p) {
    return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(load4(p)))));
  }
  SPECDEC_INLINE static I32 load_u8_pairs(const std::uint8_t* p) {
    return vreinterpretq_s32_u16(vmovl_u8(vld1_u8(p)));
  }
  SPECDEC_INLINE static F32 load_f16(const std::uint8_t* p) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
  }
  SPECDEC_INLINE static F32 load_bf16(const std::uint8_t* p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
  }
  SPECDEC_INLINE static F32 load_f32(const std::uint8_t* p) {
    return vreinterpretq_f32_u8(vld1q_u8(p));
  }
  SPECDEC_INLINE static I32 low16(I32 pairs) { return vandq_s32(pairs, vdupq_n_s32(0xFFFF)); }
  SPECDEC_INLINE static I32 high16(I32 pairs) {
    return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(pairs), 16));
  }

  SPECDEC_INLINE static I32 zero() { return vdupq_n_s32(0); }
  SPECDEC_INLINE static I32 set1(std::int32_t x) { return vdupq_n_s32(x); }
  SPECDEC_INLINE static I32 add(I32 a, I32 b) { return vaddq_s32(a, b); }
  SPECDEC_INLINE static I32 mul(I32 a, I32 b) { return vmulq_s32(a, b); }
  template <int kBits>
  SPECDEC_INLINE static I32 shift_left(I32 a) {
    return vshlq_n_s32(a, kBits);
  }
  SPECDEC_INLINE static I32 dot_pairs(I32 acc, I32 a, const std::int32_t* b) {
    return dot_pairs(acc, a, set1(*b));
  }
  SPECDEC_INLINE static I32 dot_pairs(I32 acc, I32 a, I32 b) {
    const int16x8_t pairs = vreinterpretq_s16_s32(a);
    const int16x8_t factor = vreinterpretq_s16_s32(b);
    return vaddq_s32(acc, vpaddq_s32(vmull_s16(vget_low_s16(pairs), vget_low_s16(factor)),
                                     vmull_high_s16(pairs, factor)));
  }
  SPECDEC_INLINE static F32 to_f32(I32 a) { return vcvtq_f32_s32(a); }
  SPECDEC_INLINE static F32 f_zero() { return vdupq_n_f32(0); }
  SPECDEC_INLINE static F32 f_set1(float x) { return vdupq_n_f32(x); }
  SPECDEC_INLINE static F32 f_add(F32 a, F32 b) { return vaddq_f32(a, b); }
  SPECDEC_INLINE static F32 f_mul(F32 a, F32 b) { return vmulq_f32(a, b); }
  SPECDEC_INLINE static F32 f_fma(F32 a, F32 b, F32 c) { return vfmaq_f32(c, a, b); }
  SPECDEC_INLINE static F32 f_fnma(F32 a, F32 b, F32 c) { return vfmsq_f32(c, a, b); }
  SPECDEC_INLINE static F32 f_load(const float* p) { return vld1q_f32(p); }
  SPECDEC_INLINE static void f_store(float* p, F32 a) { vst1q_f32(p, a); }
  SPECDEC_INLINE static void prefetch(const std::uint8_t* p) { __builtin_prefetch(p); }

 private:
  SPECDEC_INLINE static uint8x8_t load4(const std::uint8_t* p) {
    std::uint32_t word;
    __builtin_memcpy(&word, p, 4);
    return vreinterpret_u8_u32(vdup_n_u32(word));
  }
};

}  // namespace specdec::SPECDEC_KERNELS
