// See int_avx512.h; dots out of 16-bit products.
#pragma once

#include "backend/cpu/int_256.h"

namespace specdec::avx2 {

struct Simd : Int256 {
  static constexpr bool kCentresBytes = true;
  static constexpr bool kScalesPairs = true;

  SPECDEC_INLINE static I32 dot_pairs(I32 acc, I32 a, const std::int32_t* b) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(a, _mm256_set1_epi32(*b)));
  }

  template <int kMaxWeight, int kVectors, int kN>
  SPECDEC_INLINE static void dot(const Bytes* w, const std::int8_t* a, I32* acc) {
    const __m256i ones = _mm256_set1_epi16(1);
    if constexpr (kMaxWeight > 127) {
      // Centred on zero, |w| <= 128 and a pair of products fits: 2 * 128 * 127 < 2^15. The sign
      // goes to the activations.
      unroll<kVectors>([&]<int kV>() SPECDEC_INLINE {
        const __m256i centred = _mm256_xor_si256(w[kV], _mm256_set1_epi8(static_cast<char>(0x80)));
        const __m256i size = _mm256_abs_epi8(centred);
        unroll<kN>([&]<int kG>() SPECDEC_INLINE {
          const __m256i signed_a = _mm256_sign_epi8(word(a + 32 * kG + 4 * kV), centred);
          acc[kG] = _mm256_add_epi32(acc[kG],
                                     _mm256_madd_epi16(_mm256_maddubs_epi16(size, signed_a), ones));
        });
      });
    } else {
      scaled_dot<kMaxWeight, kVectors, kN>(w, a, ones, acc);
    }
  }

  // The low 16 bits of both.
  SPECDEC_INLINE static I32 pair16(I32 low, I32 high) {
    return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xAA);
  }
  SPECDEC_INLINE static I32 negate(I32 a) { return _mm256_sub_epi32(zero(), a); }
  // acc[g] += scale * dot, where scale is a pair of the same int16 and kMaxWeight <= 127: what adds
  // neighbouring sums of 16 bits multiplies them too.
  template <int kMaxWeight, int kVectors, int kN>
  SPECDEC_INLINE static void scaled_dot(const Bytes* w, const std::int8_t* a, I32 scale, I32* acc) {
    // maddubs adds two products into int16: kRun vectors may be summed there without overflow,
    // since |sum| <= kRun * 2 * 127 * kMaxWeight.
    constexpr int kFit = 32767 / (2 * 127 * kMaxWeight);
    constexpr int kRun = kFit > kVectors ? kVectors : kFit;
    static_assert(kRun >= 1);
    unroll<kN>([&]<int kG>() SPECDEC_INLINE {
      unroll<(kVectors + kRun - 1) / kRun>([&]<int kI>() SPECDEC_INLINE {
        constexpr int kFirst = kI * kRun;
        constexpr int kLength = kVectors - kFirst < kRun ? kVectors - kFirst : kRun;
        const std::int8_t* from = a + 32 * kG + 4 * kFirst;
        __m256i sum = product(w[kFirst], from);
        unroll<kLength - 1>([&]<int kV>() SPECDEC_INLINE {
          sum = _mm256_add_epi16(sum, product(w[kFirst + kV + 1], from + 4 * (kV + 1)));
        });
        acc[kG] = _mm256_add_epi32(acc[kG], _mm256_madd_epi16(sum, scale));
      });
    });
  }

 private:
  SPECDEC_INLINE static __m256i word(const std::int8_t* a) {
    std::int32_t out;
    __builtin_memcpy(&out, a, 4);
    return _mm256_set1_epi32(out);
  }
  SPECDEC_INLINE static __m256i product(Bytes w, const std::int8_t* a) {
    return _mm256_maddubs_epi16(w, word(a));
  }
};

}  // namespace specdec::avx2
