// See fold_avx512.h; in plain C++, for tests on every machine.
#pragma once

namespace specdec::SPECDEC_KERNELS {

struct Fold {
  using Bytes = Simd::Bytes;
  using I32 = Simd::I32;

  template <Planes kPlanes, int kZero, int kVectors>
  static void put(const Bytes* w, const I32& scales, std::uint8_t* low, std::uint8_t* high) {
    for (int i = 0; i < 64 * kVectors; ++i) {
      const int code = w[i / 64].v[i % 64];
      const int scale = scales.v[i % 64 / 4];
      if constexpr (kPlanes == Planes::kSplit) {
        low[i] = static_cast<std::uint8_t>(code * (scale & 7));
        high[i] = static_cast<std::uint8_t>(code * (scale >> 3));
      } else if constexpr (kPlanes == Planes::kSingle) {
        low[i] = static_cast<std::uint8_t>(code * scale);
      } else if constexpr (kPlanes == Planes::kNegated) {
        low[i] = static_cast<std::uint8_t>((kZero - code) * scale);
      } else {
        const int product = (code - kZero) * scale;
        low[i] = static_cast<std::uint8_t>(product);
        high[i] = static_cast<std::uint8_t>(product >> 8);
      }
    }
  }
  template <int kZero>
  static void put_codes(const Bytes& w, std::uint8_t* line) {
    for (int i = 0; i < 64; ++i) line[i] = static_cast<std::uint8_t>(w.v[i] - kZero);
  }

  static I32 load_sums(const std::int32_t* p) {
    I32 out;
    __builtin_memcpy(out.v, p, sizeof out.v);
    return out;
  }
  static I32 negate(const I32& a) {
    return Simd::make<I32>([&](int i) { return -a.v[i]; });
  }
};

}  // namespace specdec::SPECDEC_KERNELS
