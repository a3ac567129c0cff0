// See int_avx512.h; the dot product of Armv8.2-A.
#pragma once

#include "backend/cpu/int_128.h"

namespace specdec::neon {

struct Simd : Int128 {
  // sdot takes both sides signed. Codes above 127 are shifted down by 128, and 128 times the sum
  // of the activations goes back in.
  template <int kMaxWeight, int kVectors, int kGroup>
  SPECDEC_INLINE static void dot(const Bytes* w, const std::int8_t* a, I32* acc) {
    static_assert(kVectors % 4 == 0);
    constexpr bool kShifted = kMaxWeight > 127;
    int8x16_t codes[kVectors];
    unroll<kVectors>([&]<int kV>() SPECDEC_INLINE {
      codes[kV] = vreinterpretq_s8_u8(kShifted ? veorq_u8(w[kV], vdupq_n_u8(0x80)) : w[kV]);
    });
    unroll<kGroup>([&]<int kG>() SPECDEC_INLINE {
      unroll<kVectors / 4>([&]<int kQ>() SPECDEC_INLINE {
        const int8x16_t x = vld1q_s8(a + 32 * kG + 16 * kQ);
        unroll<4>([&]<int kV>() SPECDEC_INLINE {
          acc[kG] = vdotq_laneq_s32(acc[kG], codes[4 * kQ + kV], x, kV);
        });
        if constexpr (kShifted) {
          const I32 sums = vdotq_s32(vdupq_n_s32(0), x, vdupq_n_s8(1));
          acc[kG] = vaddq_s32(acc[kG], vdupq_n_s32(vaddvq_s32(sums) * 128));
        }
      });
    });
  }
};

}  // namespace specdec::neon
