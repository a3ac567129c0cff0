// See int_avx512.h; the matrix product of Arm's i8mm. usmmla multiplies two rows of 8 k (unsigned)
// with two columns of 8 k (signed): 32 products where sdot has 16.
#pragma once

#include "backend/cpu/int_128.h"

namespace specdec::i8mm {

struct Simd : Int128 {
  // Tiles have TileLines::kRowPairs, and sums are as sums-inl.h says of pairs.
  static constexpr bool kRowPairs = true;

  // Of rows 0 and 1, or 2 and 3: each twice.
  template <int kHalf>
  SPECDEC_INLINE static I32 twice(I32 x) {
    return kHalf == 0 ? vzip1q_s32(x, x) : vzip2q_s32(x, x);
  }
  template <int kHalf>
  SPECDEC_INLINE static F32 twice(F32 x) {
    return kHalf == 0 ? vzip1q_f32(x, x) : vzip2q_f32(x, x);
  }
  // Two neighbouring numbers of 32 bits, twice.
  SPECDEC_INLINE static I32 set2(const std::int32_t* p) { return vreinterpretq_s32_u64(load8(p)); }
  SPECDEC_INLINE static F32 f_set2(const float* p) { return vreinterpretq_f32_u64(load8(p)); }
  // Lanes r0c0 r0c1 r1c0 r1c1 and r2c0 r2c1 r3c0 r3c1 from and to a vector of each column.
  template <int kHalf>
  SPECDEC_INLINE static F32 f_pair(F32 c0, F32 c1) {
    return kHalf == 0 ? vzip1q_f32(c0, c1) : vzip2q_f32(c0, c1);
  }
  template <int kColumn>
  SPECDEC_INLINE static F32 f_column(F32 first, F32 second) {
    return kColumn == 0 ? vuzp1q_f32(first, second) : vuzp2q_f32(first, second);
  }

  // w[2u] has 8 k of two rows, w[2u + 1] those of the other two; a: of each pair of columns, 8 k of
  // one and of the other in turn. kSums: 1, of a column that lies beside itself, or even.
  template <int kMaxWeight, int kVectors, int kSums>
  SPECDEC_INLINE static void dot(const Bytes* w, const std::int8_t* a, I32* acc) {
    if constexpr (kSums == 1) {
      I32 both[2] = {acc[0], acc[0]};  // what they start with is the same in all lanes
      dot<kMaxWeight, kVectors, 2>(w, a, both);
      acc[0] = vuzp1q_s32(both[0], both[1]);
    } else {
      unroll<kVectors / 2>([&]<int kU>() SPECDEC_INLINE {
        unroll<kSums / 2>([&]<int kP>() SPECDEC_INLINE {
          const int8x16_t x = vld1q_s8(a + 64 * kP + 16 * kU);
          acc[2 * kP] = vusmmlaq_s32(acc[2 * kP], w[2 * kU], x);
          acc[2 * kP + 1] = vusmmlaq_s32(acc[2 * kP + 1], w[2 * kU + 1], x);
        });
      });
    }
  }

 private:
  SPECDEC_INLINE static uint64x2_t load8(const void* p) {
    std::uint64_t both;
    __builtin_memcpy(&both, p, 8);
    return vdupq_n_u64(both);
  }
};

}  // namespace specdec::i8mm
