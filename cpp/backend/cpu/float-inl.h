// Products with weights of 16 and 32 bits. Included inside a target region after columns-inl.h.
#pragma once

namespace specdec::SPECDEC_KERNELS {

struct FloatF32 {
  static constexpr int kBytes = 4;
  SPECDEC_INLINE static Simd::F32 load(const std::uint8_t* p) { return Simd::load_f32(p); }
};
struct FloatF16 {
  static constexpr int kBytes = 2;
  SPECDEC_INLINE static Simd::F32 load(const std::uint8_t* p) { return Simd::load_f16(p); }
};
struct FloatBF16 {
  static constexpr int kBytes = 2;
  SPECDEC_INLINE static Simd::F32 load(const std::uint8_t* p) { return Simd::load_bf16(p); }
};

// Columns of a float kernel whose sums (two chains of kParts vectors each) fit the registers.
inline constexpr int kFloatColumns = kParts == 1 ? 8 : 3;

// Adds kUnit or fewer k to the two chains of columns kFirst .. kFirst + kN - 1.
template <class Tile, int kCols, int kFirst, int kN>
SPECDEC_INLINE inline void add_floats(const std::uint8_t* w, const float* x, std::int64_t n,
                                      float* out, float* odd) {
  using S = Simd;
  constexpr int kStep = kTileRows * Tile::kBytes;
  S::F32 acc[2][kN][kParts];
  const auto at = [](int column, int part)
                      SPECDEC_INLINE { return (kFirst + column) * kTileRows + part * S::kLanes; };
  unroll<kN * kParts>([&]<int kI>() SPECDEC_INLINE {
    acc[0][kI / kParts][kI % kParts] = S::f_load(out + at(kI / kParts, kI % kParts));
    acc[1][kI / kParts][kI % kParts] = S::f_load(odd + at(kI / kParts, kI % kParts));
  });
  const auto step = [&]<int kChain>(std::int64_t k) SPECDEC_INLINE {
    if constexpr (kFirst == 0 && (kStep == 64 || kChain == 0))
      S::prefetch(w + kPrefetchAhead + k * kStep);
    S::F32 rows[kParts];
    unroll<kParts>([&]<int kP>() SPECDEC_INLINE {
      rows[kP] = Tile::load(w + k * kStep + kP * S::kLanes * Tile::kBytes);
    });
    unroll<kN>([&]<int kC>() SPECDEC_INLINE {
      const S::F32 factor = S::f_set1(x[k * kCols + kFirst + kC]);
      unroll<kParts>([&]<int kP>() SPECDEC_INLINE {
        acc[kChain][kC][kP] = S::f_fma(rows[kP], factor, acc[kChain][kC][kP]);
      });
    });
  };
  std::int64_t k = 0;
  for (; k + 1 < n; k += 2) {
    step.template operator()<0>(k);
    step.template operator()<1>(k + 1);
  }
  if (k < n) step.template operator()<0>(k);
  unroll<kN * kParts>([&]<int kI>() SPECDEC_INLINE {
    S::f_store(out + at(kI / kParts, kI % kParts), acc[0][kI / kParts][kI % kParts]);
    S::f_store(odd + at(kI / kParts, kI % kParts), acc[1][kI / kParts][kI % kParts]);
  });
}

// Float formats: one fma per weight, in two chains (even and odd k) that are added at the end, so
// that a single column does not wait for the latency of every fma.
template <class Tile, int kCols>
void tile_float(const std::uint8_t* tiles, const PackedInput& input, float* out) {
  using S = Simd;
  constexpr int kStep = kTileRows * Tile::kBytes;
  constexpr int kUnit = 128;  // k that stay in the first cache while groups of columns take turns
  const std::int64_t n_units = (input.n_in + kUnit - 1) / kUnit;
  alignas(64) float odd[kCols * kTileRows] = {};
  for (int i = 0; i < kCols * kTileRows; ++i) out[i] = 0;
  for (std::int64_t t = 0; t < n_units; ++t) {
    const std::uint8_t* unit = tiles + t * kUnit * kStep;
    const float* x = input.x + t * kUnit * kCols;
    const std::int64_t n = input.n_in - t * kUnit < kUnit ? input.n_in - t * kUnit : kUnit;
    for_groups<kCols, kFloatColumns>([&]<int kFirst, int kN>() SPECDEC_INLINE {
      add_floats<Tile, kCols, kFirst, kN>(unit, x, n, out, odd);
    });
  }
  for (int i = 0; i < kCols * kTileRows; i += S::kLanes)
    S::f_store(out + i, S::f_add(S::f_load(out + i), S::f_load(odd + i)));
}

}  // namespace specdec::SPECDEC_KERNELS
