// Turns rows of activations into inputs, for matmul-inl.h. Included inside a target region, after
// simd_*.h.
#pragma once

namespace specdec::SPECDEC_KERNELS {

inline void quantize_float(const float* x, std::int64_t n_in, int col, const PackedInput& input) {
  auto* out = const_cast<float*>(input.x);
  for (std::int64_t k = 0; k < n_in; ++k) out[k * input.n_cols + col] = x[k];
}

// Scale and codes of one block: d = amax / 127, codes nearest even. A NaN or infinity anywhere
// makes d NaN, so that it reaches the output instead of vanishing in an integer.
template <int kBlock>
inline float quantize_block(const float* x, std::int8_t* q, std::int64_t q_stride32) {
  F32x16 amax = F32x16::zero();
  F32x16 poison = F32x16::zero();
  for (int i = 0; i < kBlock; i += 16) {
    const F32x16 v = F32x16::load(x + i);
    amax = max(amax, abs(v));
    poison = fma(v, F32x16::zero(), poison);
  }
  const float largest = max_across(amax);
  const float inverse = largest > 0 ? 127.0F / largest : 0.0F;
  const bool nan = any_nan(poison);
  const bool finite = !nan && inverse <= 3.0e38F;
  const F32x16 scale = F32x16::set1(finite ? inverse : 0.0F);
  for (int i = 0; i < kBlock; i += 16) {
    std::int8_t* dst = q + i / 32 * q_stride32 + i % 32;
    store_i8(finite ? F32x16::load(x + i) * scale : F32x16::zero(), dst);
  }
  return finite ? largest / 127.0F : !nan ? 0.0F : std::numeric_limits<float>::quiet_NaN();
}

inline void quantize_q32(const float* x, std::int64_t n_in, int col, const PackedInput& input) {
  const std::int64_t n_cols = input.n_cols;
  auto* q = const_cast<std::int8_t*>(input.q);
  auto* d = const_cast<float*>(input.d);
  auto* neg_sums = const_cast<std::int32_t*>(input.neg_sums);
  auto* scaled_sums = const_cast<float*>(input.scaled_sums);
  const std::int64_t n_padded = padded_n_in(InputKind::kQ32, n_in) / 32;
  for (std::int64_t b = 0; b < n_padded; ++b) {
    const std::int64_t at = b * n_cols + col;
    std::int8_t* codes = q + at * 32;
    if (b * 32 >= n_in) {
      __builtin_memset(codes, 0, 32);
      d[at] = 0;
      neg_sums[at] = 0;
      scaled_sums[at] = 0;
      continue;
    }
    d[at] = quantize_block<32>(x + b * 32, codes, 32);
    const std::int32_t sum = sum_i8(codes) + sum_i8(codes + 16);
    neg_sums[at] = -sum;
    scaled_sums[at] = d[at] * static_cast<float>(sum);
  }
}

inline std::int32_t pair_of(std::int32_t low, std::int32_t high) {
  return static_cast<std::int32_t>((static_cast<std::uint32_t>(low) & 0xFFFFU) |
                                   static_cast<std::uint32_t>(high) << 16);
}

inline void quantize_q256(const float* x, std::int64_t n_in, int col, const PackedInput& input) {
  const std::int64_t n_cols = input.n_cols;
  auto* q = const_cast<std::int8_t*>(input.q);
  auto* d = const_cast<float*>(input.d);
  auto* neg_sums = const_cast<std::int32_t*>(input.neg_sums);
  auto* pairs32 = const_cast<std::int32_t*>(input.pairs32);
  auto* pairs16 = const_cast<std::int32_t*>(input.pairs16);
  for (std::int64_t t = 0; t < n_in / 256; ++t) {
    std::int8_t* codes = q + (8 * t * n_cols + col) * 32;
    d[t * n_cols + col] = quantize_block<256>(x + t * 256, codes, 32 * n_cols);
    std::int32_t sums[16];
    for (int s = 0; s < 16; ++s) {
      sums[s] = sum_i8(codes + s / 2 * 32 * n_cols + s % 2 * 16);
      neg_sums[(16 * t + s) * n_cols + col] = -sums[s];
    }
    for (int p = 0; p < 8; ++p) {
      pairs16[(8 * t + p) * n_cols + col] = pair_of(sums[2 * p], sums[2 * p + 1]);
    }
    for (int p = 0; p < 4; ++p) {
      pairs32[(4 * t + p) * n_cols + col] =
          pair_of(sums[4 * p] + sums[4 * p + 1], sums[4 * p + 2] + sums[4 * p + 3]);
    }
  }
}

}  // namespace specdec::SPECDEC_KERNELS
