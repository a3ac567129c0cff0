// See int_avx512.h; the reference in plain C++.
#pragma once

namespace specdec::SPECDEC_KERNELS {

// What is long is a function of its own: within kernels, and unrolled there, it took minutes to
// compile and gained nothing.
struct Simd {
  static constexpr int kLanes = 16;
  struct Bytes {
    std::uint8_t v[64];
  };
  struct I32 {
    std::int32_t v[16];
  };
  struct F32 {
    float v[16];
  };

  template <class T, class F>
  static T make(F f) {
    T out;
    for (int i = 0; i < static_cast<int>(sizeof(out.v) / sizeof(out.v[0])); ++i) out.v[i] = f(i);
    return out;
  }

  static Bytes load(const std::uint8_t* line) {
    Bytes out;
    __builtin_memcpy(out.v, line, 64);
    return out;
  }
  static Bytes low4(Bytes x) { return bits<0, 0x0F>(x); }
  static Bytes high4(Bytes x) { return bits<4, 0x0F>(x); }
  template <int kShift, int kMask>
  static Bytes bits(const Bytes& x) {
    return make<Bytes>([&](int i) {
      const int shifted =
          kShift >= 0 ? x.v[i] >> (kShift >= 0 ? kShift : 0) : x.v[i] << (kShift < 0 ? -kShift : 0);
      return static_cast<std::uint8_t>(shifted & kMask);
    });
  }
  template <int kShift, int kMask>
  static I32 bits(const I32& x) {
    Bytes bytes;
    __builtin_memcpy(bytes.v, x.v, 64);
    bytes = bits<kShift, kMask>(bytes);
    I32 out;
    __builtin_memcpy(out.v, bytes.v, 64);
    return out;
  }
  template <int kShift, int kMask>
  static Bytes or_bits(const Bytes& q, const Bytes& x) {
    const Bytes b = bits<kShift, kMask>(x);
    return make<Bytes>([&](int i) { return static_cast<std::uint8_t>(q.v[i] | b.v[i]); });
  }

  static const std::uint8_t* load_table(const std::uint8_t* p) { return p; }
  [[gnu::noinline]] static Bytes lookup(const std::uint8_t* table, const Bytes& x) {
    return make<Bytes>([&](int i) { return table[x.v[i]]; });
  }

  static I32 load_u8(const std::uint8_t* p) {
    return make<I32>([&](int i) { return std::int32_t{p[i]}; });
  }
  static I32 load_i8(const std::uint8_t* p) {
    return make<I32>([&](int i) { return std::int32_t{static_cast<std::int8_t>(p[i])}; });
  }
  static I32 load_u8_pairs(const std::uint8_t* p) {
    return make<I32>(
        [&](int i) { return std::int32_t{p[2 * i]} | std::int32_t{p[2 * i + 1]} << 16; });
  }
  [[gnu::noinline]] static F32 load_f16(const std::uint8_t* p) {
    return make<F32>([&](int i) { return f16_to_f32(half(p, i)); });
  }
  [[gnu::noinline]] static F32 load_bf16(const std::uint8_t* p) {
    return make<F32>([&](int i) { return bf16_to_f32(half(p, i)); });
  }
  static F32 load_f32(const std::uint8_t* p) {
    F32 out;
    __builtin_memcpy(out.v, p, sizeof out.v);
    return out;
  }
  static I32 low16(const I32& pairs) {
    return make<I32>([&](int i) { return pairs.v[i] & 0xFFFF; });
  }
  static I32 high16(const I32& pairs) {
    return make<I32>([&](int i) {
      return static_cast<std::int32_t>(static_cast<std::uint32_t>(pairs.v[i]) >> 16);
    });
  }

  static I32 zero() { return set1(0); }
  static I32 set1(std::int32_t x) {
    return make<I32>([&](int) { return x; });
  }
  static I32 add(const I32& a, const I32& b) {
    return make<I32>([&](int i) { return wrap(std::int64_t{a.v[i]} + b.v[i]); });
  }
  static I32 mul(const I32& a, const I32& b) {
    return make<I32>([&](int i) { return wrap(std::int64_t{a.v[i]} * b.v[i]); });
  }
  template <int kBits>
  static I32 shift_left(const I32& a) {
    return make<I32>([&](int i) { return wrap(std::int64_t{a.v[i]} * (1 << kBits)); });
  }
  static I32 dot_pairs(const I32& acc, const I32& a, const std::int32_t* b) {
    const std::int32_t low = static_cast<std::int16_t>(*b);
    const std::int32_t high = *b >> 16;
    return make<I32>([&](int i) {
      return wrap(std::int64_t{acc.v[i]} + static_cast<std::int16_t>(a.v[i]) * low +
                  (a.v[i] >> 16) * high);
    });
  }
  static F32 to_f32(const I32& a) {
    return make<F32>([&](int i) { return static_cast<float>(a.v[i]); });
  }
  static F32 f_zero() { return f_set1(0); }
  static F32 f_set1(float x) {
    return make<F32>([&](int) { return x; });
  }
  static F32 f_add(const F32& a, const F32& b) {
    return make<F32>([&](int i) { return a.v[i] + b.v[i]; });
  }
  static F32 f_mul(const F32& a, const F32& b) {
    return make<F32>([&](int i) { return a.v[i] * b.v[i]; });
  }
  [[gnu::noinline]] static F32 f_fma(const F32& a, const F32& b, const F32& c) {
    return make<F32>([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
  }
  [[gnu::noinline]] static F32 f_fnma(const F32& a, const F32& b, const F32& c) {
    return make<F32>([&](int i) { return std::fma(-a.v[i], b.v[i], c.v[i]); });
  }
  static F32 f_load(const float* p) {
    F32 out;
    __builtin_memcpy(out.v, p, sizeof out.v);
    return out;
  }
  static void f_store(float* p, const F32& a) { __builtin_memcpy(p, a.v, sizeof a.v); }
  static void prefetch(const std::uint8_t*) {}

  template <int kMaxWeight, int kVectors, int kGroup>
  static void dot(const Bytes* w, const std::int8_t* a, I32* acc) {
    if constexpr (kGroup == 1)
      dot_column<kVectors>(w, a, acc[0]);
    else
      dot_columns<kVectors, kGroup>(w, a, acc);
  }

 private:
  template <int kVectors>
  static void dot_column(const Bytes* w, const std::int8_t* a, I32& acc) {
    for (int v = 0; v < kVectors; ++v) {
      for (int r = 0; r < 16; ++r) {
        for (int i = 0; i < 4; ++i) acc.v[r] += std::int32_t{w[v].v[4 * r + i]} * a[4 * v + i];
      }
    }
  }
  template <int kVectors, int kGroup>
  [[gnu::noinline]] static void dot_columns(const Bytes* w, const std::int8_t* a, I32* acc) {
    for (int g = 0; g < kGroup; ++g) dot_column<kVectors>(w, a + 32 * g, acc[g]);
  }
  static std::int32_t wrap(std::int64_t x) { return static_cast<std::int32_t>(x); }
  static std::uint16_t half(const std::uint8_t* p, int i) {
    std::uint16_t out;
    __builtin_memcpy(&out, p + 2 * i, 2);
    return out;
  }
};

}  // namespace specdec::SPECDEC_KERNELS
