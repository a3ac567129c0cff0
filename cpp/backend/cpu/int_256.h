// What int_avx2.h and int_avxvnni.h share: 8 output rows per register, two halves make a tile.
#pragma once

namespace specdec::SPECDEC_KERNELS {

struct Int256 {
  static constexpr int kLanes = 8;
  using Bytes = __m256i;
  using I32 = __m256i;
  using F32 = __m256;

  SPECDEC_INLINE static Bytes load(const std::uint8_t* line) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line));
  }
  SPECDEC_INLINE static Bytes low4(Bytes x) { return _mm256_and_si256(x, _mm256_set1_epi8(0x0F)); }
  SPECDEC_INLINE static Bytes high4(Bytes x) { return low4(_mm256_srli_epi16(x, 4)); }
  template <int kShift>
  SPECDEC_INLINE static Bytes shift(Bytes x) {
    if constexpr (kShift > 0) return _mm256_srli_epi16(x, kShift);
    if constexpr (kShift < 0) return _mm256_slli_epi16(x, -kShift);
    return x;
  }
  template <int kShift, int kMask>
  SPECDEC_INLINE static Bytes bits(Bytes x) {
    return _mm256_and_si256(shift<kShift>(x), _mm256_set1_epi8(kMask));
  }
  template <int kShift, int kMask>
  SPECDEC_INLINE static Bytes or_bits(Bytes q, Bytes x) {
    return _mm256_or_si256(q, bits<kShift, kMask>(x));
  }

  // Bytes 0 .. 15 stand for those of a table.
  SPECDEC_INLINE static Bytes load_table(const std::uint8_t* p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  SPECDEC_INLINE static Bytes lookup(Bytes table, Bytes x) { return _mm256_shuffle_epi8(table, x); }

  SPECDEC_INLINE static I32 load_u8(const std::uint8_t* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  SPECDEC_INLINE static I32 load_i8(const std::uint8_t* p) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  SPECDEC_INLINE static I32 load_u8_pairs(const std::uint8_t* p) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  SPECDEC_INLINE static F32 load_f16(const std::uint8_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  SPECDEC_INLINE static F32 load_bf16(const std::uint8_t* p) {
    const __m256i wide =
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  SPECDEC_INLINE static F32 load_f32(const std::uint8_t* p) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  }
  SPECDEC_INLINE static I32 low16(I32 pairs) {
    return _mm256_and_si256(pairs, _mm256_set1_epi32(0xFFFF));
  }
  SPECDEC_INLINE static I32 high16(I32 pairs) { return _mm256_srli_epi32(pairs, 16); }

  SPECDEC_INLINE static I32 zero() { return _mm256_setzero_si256(); }
  SPECDEC_INLINE static I32 set1(std::int32_t x) { return _mm256_set1_epi32(x); }
  SPECDEC_INLINE static I32 add(I32 a, I32 b) { return _mm256_add_epi32(a, b); }
  SPECDEC_INLINE static I32 mul(I32 a, I32 b) { return _mm256_mullo_epi32(a, b); }
  template <int kBits>
  SPECDEC_INLINE static I32 shift_left(I32 a) {
    return _mm256_slli_epi32(a, kBits);
  }
  SPECDEC_INLINE static F32 to_f32(I32 a) { return _mm256_cvtepi32_ps(a); }
  SPECDEC_INLINE static F32 f_zero() { return _mm256_setzero_ps(); }
  SPECDEC_INLINE static F32 f_set1(float x) { return _mm256_set1_ps(x); }
  SPECDEC_INLINE static F32 f_add(F32 a, F32 b) { return _mm256_add_ps(a, b); }
  SPECDEC_INLINE static F32 f_mul(F32 a, F32 b) { return _mm256_mul_ps(a, b); }
  SPECDEC_INLINE static F32 f_fma(F32 a, F32 b, F32 c) { return _mm256_fmadd_ps(a, b, c); }
  SPECDEC_INLINE static F32 f_fnma(F32 a, F32 b, F32 c) { return _mm256_fnmadd_ps(a, b, c); }
  SPECDEC_INLINE static F32 f_load(const float* p) { return _mm256_loadu_ps(p); }
  SPECDEC_INLINE static void f_store(float* p, F32 a) { _mm256_storeu_ps(p, a); }
  SPECDEC_INLINE static void prefetch(const std::uint8_t* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }
};

}  // namespace specdec::SPECDEC_KERNELS
