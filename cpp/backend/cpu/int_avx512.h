// Integer vectors for the matmul kernels, 16 output rows per register. Included inside a target
// region, for kernels of one's own namespace. int_avx2.h and int_scalar.h offer the same names;
// integer results are exact, so all three give the same bits.
#pragma once

namespace specdec::SPECDEC_KERNELS {

struct Simd {
  static constexpr int kLanes = 16;
  // dot() takes 128 off weights above 127 itself: its caller then leaves their offset out.
  // There is a scaled_dot(), whose weights are at most 127.
  using Bytes = __m512i;  // 4 bytes per lane
  using I32 = __m512i;    // one int32 (or two int16) per lane
  using F32 = __m512;

  // --- bytes ---
  SPECDEC_INLINE static Bytes load(const std::uint8_t* line) { return _mm512_loadu_si512(line); }
  SPECDEC_INLINE static Bytes low4(Bytes x) { return _mm512_and_si512(x, _mm512_set1_epi8(0x0F)); }
  SPECDEC_INLINE static Bytes high4(Bytes x) { return low4(_mm512_srli_epi16(x, 4)); }
  // Shifts right (left when negative); bits that cross bytes must be masked by the caller.
  template <int kShift>
  SPECDEC_INLINE static Bytes shift(Bytes x) {
    if constexpr (kShift > 0) return _mm512_srli_epi16(x, kShift);
    if constexpr (kShift < 0) return _mm512_slli_epi16(x, -kShift);
    return x;
  }
  // (shift(x)) & mask
  template <int kShift, int kMask>
  SPECDEC_INLINE static Bytes bits(Bytes x) {
    return _mm512_and_si512(shift<kShift>(x), _mm512_set1_epi8(kMask));
  }
  // q | (shift(x) & mask)
  template <int kShift, int kMask>
  SPECDEC_INLINE static Bytes or_bits(Bytes q, Bytes x) {
    return _mm512_ternarylogic_epi32(q, shift<kShift>(x), _mm512_set1_epi8(kMask), 0xF8);
  }

  // Bytes 0 .. 15 stand for those of a table.
  SPECDEC_INLINE static Bytes load_table(const std::uint8_t* p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  SPECDEC_INLINE static Bytes lookup(Bytes table, Bytes x) { return _mm512_shuffle_epi8(table, x); }

  // --- per-row scales ---
  SPECDEC_INLINE static I32 load_u8(const std::uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  SPECDEC_INLINE static I32 load_i8(const std::uint8_t* p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  // Two bytes per lane become two int16.
  SPECDEC_INLINE static I32 load_u8_pairs(const std::uint8_t* p) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  SPECDEC_INLINE static F32 load_f16(const std::uint8_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  SPECDEC_INLINE static F32 load_bf16(const std::uint8_t* p) {
    const __m512i wide =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  SPECDEC_INLINE static F32 load_f32(const std::uint8_t* p) { return _mm512_loadu_ps(p); }
  SPECDEC_INLINE static I32 low16(I32 pairs) {
    return _mm512_and_si512(pairs, _mm512_set1_epi32(0xFFFF));
  }
  SPECDEC_INLINE static I32 high16(I32 pairs) { return _mm512_srli_epi32(pairs, 16); }

  // --- arithmetic ---
  SPECDEC_INLINE static I32 zero() { return _mm512_setzero_si512(); }
  SPECDEC_INLINE static I32 set1(std::int32_t x) { return _mm512_set1_epi32(x); }
  SPECDEC_INLINE static I32 add(I32 a, I32 b) { return _mm512_add_epi32(a, b); }
  SPECDEC_INLINE static I32 mul(I32 a, I32 b) { return _mm512_mullo_epi32(a, b); }
  template <int kBits>
  SPECDEC_INLINE static I32 shift_left(I32 a) {
    return _mm512_slli_epi32(a, kBits);
  }
  // acc + a.low * b.low + a.high * b.high, int16 pairs; b is one pair for all lanes.
  SPECDEC_INLINE static I32 dot_pairs(I32 acc, I32 a, const std::int32_t* b) {
    return _mm512_dpwssd_epi32(acc, a, _mm512_set1_epi32(*b));
  }
  SPECDEC_INLINE static F32 to_f32(I32 a) { return _mm512_cvtepi32_ps(a); }
  SPECDEC_INLINE static F32 f_zero() { return _mm512_setzero_ps(); }
  SPECDEC_INLINE static F32 f_set1(float x) { return _mm512_set1_ps(x); }
  SPECDEC_INLINE static F32 f_add(F32 a, F32 b) { return _mm512_add_ps(a, b); }
  SPECDEC_INLINE static F32 f_mul(F32 a, F32 b) { return _mm512_mul_ps(a, b); }
  SPECDEC_INLINE static F32 f_fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
  SPECDEC_INLINE static F32 f_fnma(F32 a, F32 b, F32 c) { return _mm512_fnmadd_ps(a, b, c); }
  SPECDEC_INLINE static F32 f_load(const float* p) { return _mm512_loadu_ps(p); }
  SPECDEC_INLINE static void f_store(float* p, F32 a) { _mm512_storeu_ps(p, a); }
  SPECDEC_INLINE static void prefetch(const std::uint8_t* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }

  // acc[g] += sum over v < kVectors of w[v] (unsigned) . a[g][4v .. 4v+3] (signed), per lane.
  // kMaxWeight bounds w; a: [kGroup] rows of 32 bytes.
  template <int kMaxWeight, int kVectors, int kGroup>
  SPECDEC_INLINE static void dot(const Bytes* w, const std::int8_t* a, I32* acc) {
    unroll<kVectors>([&]<int kV>() SPECDEC_INLINE {
      unroll<kGroup>(
          [&]<int kG>() SPECDEC_INLINE { acc[kG] = dpbusd(acc[kG], w[kV], a + 32 * kG + 4 * kV); });
    });
  }

 private:
  // The broadcast folds into the instruction; compilers emit it apart.
  SPECDEC_INLINE static I32 dpbusd(I32 acc, Bytes w, const std::int8_t* a) {
    asm("vpdpbusd %2%{1to16%}, %1, %0"
        : "+v"(acc)
        : "v"(w), "m"(*reinterpret_cast<const std::int32_t*>(a)));
    return acc;
  }
};

}  // namespace specdec::SPECDEC_KERNELS
