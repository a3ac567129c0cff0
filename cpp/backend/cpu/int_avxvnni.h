// See int_avx512.h; AVX2 with the dot instructions of AVX-VNNI.
#pragma once

#include "backend/cpu/int_256.h"

namespace specdec::avxvnni {

struct Simd : Int256 {
  SPECDEC_INLINE static I32 dot_pairs(I32 acc, I32 a, const std::int32_t* b) {
    return _mm256_dpwssd_avx_epi32(acc, a, _mm256_set1_epi32(*b));
  }
  template <int kMaxWeight, int kVectors, int kGroup>
  SPECDEC_INLINE static void dot(const Bytes* w, const std::int8_t* a, I32* acc) {
    unroll<kVectors>([&]<int kV>() SPECDEC_INLINE {
      unroll<kGroup>([&]<int kG>() SPECDEC_INLINE {
        std::int32_t word;
        __builtin_memcpy(&word, a + 32 * kG + 4 * kV, 4);
        acc[kG] = _mm256_dpbusd_avx_epi32(acc[kG], w[kV], _mm256_set1_epi32(word));
      });
    });
  }
};

}  // namespace specdec::avxvnni
