// See int_avx512.h; dots out of 16-bit products.
#pragma once

#include "backend/cpu/int_256.h"

// The kernels are those of halves-inl.h.
#define SPECDEC_HALVES

namespace specdec::avx2 {

struct Simd : Int256 {
  SPECDEC_INLINE static I32 dot_pairs(I32 acc, I32 a, const std::int32_t* b) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(a, _mm256_set1_epi32(*b)));
  }

  // One side of products: codes, or what is left of those above 127 without 128, whose sign goes to
  // the activations (2 * 128 * 127 < 2^15).
  struct Factor {
    Bytes size, sign;
  };
  // kSigned: codes are without 128 as they are.
  template <bool kCentred, bool kSigned>
  SPECDEC_INLINE static Factor factor(Bytes codes) {
    if constexpr (!kCentred) return {codes, codes};
    const Bytes centred =
        kSigned ? codes : _mm256_xor_si256(codes, _mm256_set1_epi8(static_cast<char>(0x80)));
    return {_mm256_abs_epi8(centred), centred};
  }
  // Sums of two neighbours, 16 bits each.
  template <bool kCentred>
  SPECDEC_INLINE static I32 products(Factor w, I32 word) {
    return _mm256_maddubs_epi16(w.size, kCentred ? _mm256_sign_epi8(word, w.sign) : word);
  }
  // The low 16 bits of both.
  SPECDEC_INLINE static I32 pair16(I32 low, I32 high) {
    return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xAA);
  }
  SPECDEC_INLINE static I32 negate(I32 a) { return _mm256_sub_epi32(zero(), a); }
  SPECDEC_INLINE static I32 ones16() { return _mm256_set1_epi16(1); }
  SPECDEC_INLINE static I32 madd(I32 a, I32 b) { return _mm256_madd_epi16(a, b); }
  // Of chains of which compilers make no trees: these would take more registers than there are.
  SPECDEC_INLINE static I32 add16_in_order(I32 a, I32 b) {
    I32 out = _mm256_add_epi16(a, b);
    asm("" : "+x"(out));
    return out;
  }
  SPECDEC_INLINE static I32 add_in_order(I32 a, I32 b) {
    I32 out = _mm256_add_epi32(a, b);
    asm("" : "+x"(out));
    return out;
  }
  SPECDEC_INLINE static I32 word(const std::int8_t* a) {
    std::int32_t out;
    __builtin_memcpy(&out, a, 4);
    return _mm256_set1_epi32(out);
  }
};

}  // namespace specdec::avx2
