// See int_avx512.h; AVX-VNNI with signed codes, from AVX-VNNI-INT8.
#pragma once

#include "backend/cpu/int_256.h"

namespace specdec::avxvnniint8 {

struct Simd : Int256 {
  // dot() takes codes without their offset where that is less work for so many columns.
  static constexpr bool kSignedCodes = true;

  template <int kOffset>
  SPECDEC_INLINE static Bytes subtract(Bytes x) {
    return _mm256_sub_epi8(x, _mm256_set1_epi8(static_cast<char>(kOffset)));
  }

  SPECDEC_INLINE static Bytes invert(Bytes x) { return _mm256_xor_si256(x, _mm256_set1_epi8(-1)); }
  // q - (shift(x) & mask)
  template <int kShift, int kMask>
  SPECDEC_INLINE static Bytes minus_bits(Bytes q, Bytes x) {
    return _mm256_sub_epi8(q, bits<kShift, kMask>(x));
  }

  SPECDEC_INLINE static I32 dot_pairs(I32 acc, I32 a, const std::int32_t* b) {
    return dpwssd(acc, a, _mm256_set1_epi32(*b));
  }
  template <int kMaxWeight, int kVectors, int kN>
  SPECDEC_INLINE static void dot(const Bytes* w, const std::int8_t* a, I32* acc) {
    unroll<kVectors>([&]<int kV>() SPECDEC_INLINE {
      unroll<kN>([&]<int kG>() SPECDEC_INLINE {
        std::int32_t word;
        __builtin_memcpy(&word, a + 32 * kG + 4 * kV, 4);
        const __m256i x = _mm256_set1_epi32(word);
        acc[kG] =
            kMaxWeight == kSignedWeights ? dpbssd(acc[kG], w[kV], x) : dpbusd(acc[kG], w[kV], x);
      });
    });
  }

 private:
#if SPECDEC_STAND_IN
  // For tests where the compiler or the processor lacks the instructions: the same sums with AVX2.
  SPECDEC_INLINE static I32 dpwssd(I32 acc, I32 a, I32 b) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
  }
  // Of the bytes with even and with odd numbers, as 16 bits.
  SPECDEC_INLINE static __m256i even(__m256i x) {
    return _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8);
  }
  SPECDEC_INLINE static I32 dpbssd(I32 acc, Bytes w, Bytes x) {
    const I32 pair = _mm256_madd_epi16(even(w), even(x));
    const I32 other = _mm256_madd_epi16(_mm256_srai_epi16(w, 8), _mm256_srai_epi16(x, 8));
    return _mm256_add_epi32(acc, _mm256_add_epi32(pair, other));
  }
  SPECDEC_INLINE static I32 dpbusd(I32 acc, Bytes w, Bytes x) {
    const I32 pair = _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(0xFF)), even(x));
    const I32 other = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(x, 8));
    return _mm256_add_epi32(acc, _mm256_add_epi32(pair, other));
  }
#else
  SPECDEC_INLINE static I32 dpwssd(I32 acc, I32 a, I32 b) {
    return _mm256_dpwssd_avx_epi32(acc, a, b);
  }
  SPECDEC_INLINE static I32 dpbssd(I32 acc, Bytes w, Bytes x) {
    return _mm256_dpbssd_epi32(acc, w, x);
  }
  SPECDEC_INLINE static I32 dpbusd(I32 acc, Bytes w, Bytes x) {
    return _mm256_dpbusd_avx_epi32(acc, w, x);
  }
#endif
};

}  // namespace specdec::avxvnniint8
