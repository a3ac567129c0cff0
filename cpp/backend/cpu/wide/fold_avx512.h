// Folds scales into the codes of a vector (4 k of 16 rows), with 512 bits. Included inside a target
// region, after int_avx512.h; fold_scalar.h offers the same.
#pragma once

namespace specdec::SPECDEC_KERNELS {

struct Fold {
  using V = __m512i;

  // The operands of w[0] .. w[kVectors - 1] times each row's scale, 64 bytes per vector, to low
  // (and high, if there are two). Codes stand for w - kZero.
  template <Planes kPlanes, int kZero, int kVectors>
  SPECDEC_INLINE static void put(const V* w, V scales, std::uint8_t* low, std::uint8_t* high) {
    const V scale = _mm512_or_si512(_mm512_slli_epi32(scales, 16),
                                    _mm512_and_si512(scales, _mm512_set1_epi32(0xFFFF)));
    unroll<kVectors>([&]<int kV>() SPECDEC_INLINE {
      if constexpr (kPlanes == Planes::kSplit) {
        // Two codes per 16 bits: neither product is above 255.
        store(low + 64 * kV, mul(w[kV], _mm512_and_si512(scale, _mm512_set1_epi16(7))));
        store(high + 64 * kV, mul(w[kV], _mm512_srli_epi16(scale, 3)));
      } else if constexpr (kPlanes == Planes::kSingle) {
        store(low + 64 * kV, mul(w[kV], scale));
      } else if constexpr (kPlanes == Planes::kNegated) {
        const V v = _mm512_sub_epi8(_mm512_set1_epi8(kZero), w[kV]);
        store(low + 64 * kV, alternate(mul(v, scale), mul(_mm512_andnot_si512(first(), v), scale)));
      } else {
        const V v = centred<kZero>(w[kV]);
        const V even = mul(_mm512_srai_epi16(swap(v), 8), scale);
        const V odd = mul(_mm512_srai_epi16(v, 8), scale);
        store(low + 64 * kV, alternate(even, swap(odd)));
        store(high + 64 * kV, alternate(swap(even), odd));
      }
    });
  }
  // w - kZero as signed bytes.
  template <int kZero>
  SPECDEC_INLINE static void put_codes(V w, std::uint8_t* line) {
    store(line, centred<kZero>(w));
  }

  SPECDEC_INLINE static V load_sums(const std::int32_t* p) { return _mm512_load_si512(p); }
  SPECDEC_INLINE static V negate(V a) { return _mm512_sub_epi32(_mm512_setzero_si512(), a); }

 private:
  SPECDEC_INLINE static V mul(V a, V b) { return _mm512_mullo_epi16(a, b); }
  SPECDEC_INLINE static void store(std::uint8_t* p, V v) { _mm512_store_si512(p, v); }
  SPECDEC_INLINE static V first() { return _mm512_set1_epi16(0x00FF); }
  // The bytes of each 16 bits change places; shifts by 8 would wait for the multiplications' port.
  SPECDEC_INLINE static V swap(V v) {
    return _mm512_shuffle_epi8(v,
                               _mm512_set4_epi32(0x0E0F0C0D, 0x0A0B0809, 0x06070405, 0x02030001));
  }
  // Of each two bytes the first one of a, the second one of b.
  SPECDEC_INLINE static V alternate(V a, V b) {
    return _mm512_ternarylogic_epi32(first(), a, b, 0xCA);
  }
  template <int kZero>
  SPECDEC_INLINE static V centred(V w) {
    if constexpr (kZero == 0) return w;
    return _mm512_sub_epi8(w, _mm512_set1_epi8(static_cast<char>(kZero)));
  }
};

}  // namespace specdec::SPECDEC_KERNELS
