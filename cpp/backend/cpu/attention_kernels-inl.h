// Inner loops of attention. Included inside a target region after math-inl.h.
#pragma once

namespace specdec::SPECDEC_KERNELS {
namespace {

constexpr int kGroup = SPECDEC_ATTENTION_GROUP;

inline F32x16 load_any(const float* p) { return F32x16::load(p); }
inline F32x16 load_any(const std::uint16_t* p) { return F32x16::load_f16(p); }

// scores[j][16 b + lane] = sum over d of q[d][j] * k[b][d][lane]
template <int kRows, int kBlocks, class E>
void score_kernel(const float* q, const E* k, int head_dim, float* scores) noexcept {
  F32x16 acc[kRows][kBlocks];
#pragma GCC unroll 16
  for (int j = 0; j < kRows; ++j) {
#pragma GCC unroll 2
    for (int b = 0; b < kBlocks; ++b) acc[j][b] = F32x16::zero();
  }
  const std::int64_t block = static_cast<std::int64_t>(head_dim) * kKvLane;
  for (int d = 0; d < head_dim; ++d) {
    F32x16 kv[kBlocks];
#pragma GCC unroll 2
    for (int b = 0; b < kBlocks; ++b) kv[b] = load_any(k + b * block);
#pragma GCC unroll 16
    for (int j = 0; j < kRows; ++j) {
      const F32x16 qj = F32x16::set1(q[j]);
#pragma GCC unroll 2
      for (int b = 0; b < kBlocks; ++b) acc[j][b] = fma(qj, kv[b], acc[j][b]);
    }
    k += kKvLane;
    q += kGroup;
  }
#pragma GCC unroll 16
  for (int j = 0; j < kRows; ++j) {
#pragma GCC unroll 2
    for (int b = 0; b < kBlocks; ++b) acc[j][b].store(scores + j * kScoreStride + b * kKvLane);
  }
}

// out[j][0..16 kVecs) += sum over i < n, ascending, of p[j][i] * v[i]
template <int kRows, int kVecs, class E>
void weigh_kernel(const float* p, const E* v, int v_stride, int n, float* out,
                  std::int64_t out_stride) noexcept {
  F32x16 acc[kRows][kVecs];
#pragma GCC unroll 16
  for (int j = 0; j < kRows; ++j) {
#pragma GCC unroll 4
    for (int c = 0; c < kVecs; ++c) acc[j][c] = F32x16::load(out + j * out_stride + 16 * c);
  }
  for (int i = 0; i < n; ++i) {
    F32x16 vv[kVecs];
#pragma GCC unroll 4
    for (int c = 0; c < kVecs; ++c) vv[c] = load_any(v + 16 * c);
#pragma GCC unroll 16
    for (int j = 0; j < kRows; ++j) {
      const F32x16 pj = F32x16::set1(p[j * kScoreStride]);
#pragma GCC unroll 4
      for (int c = 0; c < kVecs; ++c) acc[j][c] = fma(pj, vv[c], acc[j][c]);
    }
    v += v_stride;
    ++p;
  }
#pragma GCC unroll 16
  for (int j = 0; j < kRows; ++j) {
#pragma GCC unroll 4
    for (int c = 0; c < kVecs; ++c) acc[j][c].store(out + j * out_stride + 16 * c);
  }
}

// Registers: kGroup rows times this many vectors of accumulators.
constexpr int vecs_for(int rows) {
  return rows * 4 <= SPECDEC_ATTENTION_ACCUMULATORS   ? 4
         : rows * 2 <= SPECDEC_ATTENTION_ACCUMULATORS ? 2
                                                      : 1;
}

template <int kRows, class E>
void score_rows(int n_blocks, const float* q, const E* k, int head_dim, float* scores) noexcept {
  constexpr int kBlocks = vecs_for(kRows) < 2 ? 1 : 2;
  if (kBlocks == 2 && n_blocks == 2) {
    score_kernel<kRows, kBlocks>(q, k, head_dim, scores);
    return;
  }
  for (int b = 0; b < n_blocks; ++b) {
    score_kernel<kRows, 1>(q, k + static_cast<std::int64_t>(b) * head_dim * kKvLane, head_dim,
                           scores + b * kKvLane);
  }
}

template <int kRows, class E>
void weigh_rows(const float* p, const E* v, int v_stride, int n, float* out,
                std::int64_t out_stride) noexcept {
  constexpr int kVecs = vecs_for(kRows);
  int d = 0;
  for (; d + 16 * kVecs <= v_stride; d += 16 * kVecs) {
    weigh_kernel<kRows, kVecs>(p, v + d, v_stride, n, out + d, out_stride);
  }
  for (; d < v_stride; d += 16) weigh_kernel<kRows, 1>(p, v + d, v_stride, n, out + d, out_stride);
}

template <class E>
void run_score(int rows, int n_blocks, const float* q, const E* k, int head_dim,
               float* scores) noexcept {
  switch (rows) {
    case 1:
      return score_rows<1>(n_blocks, q, k, head_dim, scores);
    case 2:
      return score_rows<2>(n_blocks, q, k, head_dim, scores);
    case 3:
      return score_rows<3>(n_blocks, q, k, head_dim, scores);
    case 4:
      return score_rows<4>(n_blocks, q, k, head_dim, scores);
    case 5:
      return score_rows<5>(n_blocks, q, k, head_dim, scores);
    case 6:
      return score_rows<6>(n_blocks, q, k, head_dim, scores);
#if SPECDEC_ATTENTION_GROUP == 8
    case 7:
      return score_rows<7>(n_blocks, q, k, head_dim, scores);
    case 8:
      return score_rows<8>(n_blocks, q, k, head_dim, scores);
#endif
    default:
      return;
  }
}

template <class E>
void run_weigh(int rows, const float* p, const E* v, int v_stride, int n, float* out,
               std::int64_t out_stride) noexcept {
  switch (rows) {
    case 1:
      return weigh_rows<1>(p, v, v_stride, n, out, out_stride);
    case 2:
      return weigh_rows<2>(p, v, v_stride, n, out, out_stride);
    case 3:
      return weigh_rows<3>(p, v, v_stride, n, out, out_stride);
    case 4:
      return weigh_rows<4>(p, v, v_stride, n, out, out_stride);
    case 5:
      return weigh_rows<5>(p, v, v_stride, n, out, out_stride);
    case 6:
      return weigh_rows<6>(p, v, v_stride, n, out, out_stride);
#if SPECDEC_ATTENTION_GROUP == 8
    case 7:
      return weigh_rows<7>(p, v, v_stride, n, out, out_stride);
    case 8:
      return weigh_rows<8>(p, v, v_stride, n, out, out_stride);
#endif
    default:
      return;
  }
}

// Scores [first, n), already divided by the cap, to what exponents of 2 are made of.
inline void cap_scores(float* scores, int first, int n, float cap) {
  const F32x16 factor = F32x16::set1(cap * 0x1.715476p+0F);
  for (int i = first / 16 * 16; i < n; i += 16)
    (tanh(F32x16::load(scores + i)) * factor).store(scores + i);
}

// Scores [first, n) to unnormalised probabilities, zero in the lanes around them.
inline void softmax_row(float* scores, int first, int n, float* row_max, float* row_sum) {
  const int n_padded = (n + 15) / 16 * 16;
  const int begin = first / 16 * 16;
  for (int i = begin; i < first; ++i) scores[i] = -std::numeric_limits<float>::infinity();
  for (int i = n; i < n_padded; ++i) scores[i] = -std::numeric_limits<float>::infinity();
  F32x16 top = F32x16::load(scores + begin);
  for (int i = begin + 16; i < n_padded; i += 16) top = max(top, F32x16::load(scores + i));
  const float m = max_lanes(top);
  const F32x16 shift = F32x16::set1(m);
  F32x16 sum = F32x16::zero();
  for (int i = begin; i < n_padded; i += 16) {
    const F32x16 p = exp2_nonpositive(F32x16::load(scores + i) - shift);
    p.store(scores + i);
    sum = sum + p;
  }
  *row_max = m;
  *row_sum = sum_lanes(sum);
}

// Key blocks of any type to float, [n_blocks][head_dim][16].
inline void convert_keys(const KvLayout& layout, const std::byte* k, const std::uint16_t* scales,
                         int n_blocks, float* out) {
  const std::int64_t n = static_cast<std::int64_t>(n_blocks) * layout.head_dim * kKvLane;
  if (layout.type == KvType::kF32) {
    std::memcpy(out, k, static_cast<std::size_t>(n) * sizeof(float));
  } else if (layout.type == KvType::kF16) {
    const auto* src = reinterpret_cast<const std::uint16_t*>(k);
    for (std::int64_t i = 0; i < n; i += 16) F32x16::load_f16(src + i).store(out + i);
  } else {
    const auto* src = reinterpret_cast<const std::int8_t*>(k);
    for (std::int64_t i = 0; i < n; i += 32 * kKvLane, scales += kKvLane) {
      const F32x16 scale = F32x16::load_f16(scales);
      for (int d = 0; d < 32 * kKvLane; d += kKvLane)
        (F32x16::load_i8(src + i + d) * scale).store(out + i + d);
    }
  }
}

// Values of n <= kKvStep positions to float, [n][v_stride]. head: the kv head's part of the page.
inline void convert_values(const KvLayout& layout, const std::byte* head, int position, int n,
                           float* out) {
  const std::int64_t v_stride = layout.v_stride();
  const std::int64_t first = position * v_stride;
  const std::int64_t n_elements = n * v_stride;
  const std::byte* v = head + layout.v_offset();
  if (layout.type == KvType::kF32) {
    std::memcpy(out, reinterpret_cast<const float*>(v) + first,
                static_cast<std::size_t>(n_elements) * sizeof(float));
  } else if (layout.type == KvType::kF16) {
    const auto* src = reinterpret_cast<const std::uint16_t*>(v) + first;
    for (std::int64_t i = 0; i < n_elements; i += 16) F32x16::load_f16(src + i).store(out + i);
  } else {
    const auto* src = reinterpret_cast<const std::int8_t*>(v) + first;
    const auto* half = reinterpret_cast<const std::uint16_t*>(head + layout.v_scales_offset()) +
                       position * layout.n_scales();
    float scales[kKvStep * kMaxHeadDim / 32];
    const int n_scales = n * layout.n_scales();
    int i = 0;
    for (; i + 16 <= n_scales; i += 16) F32x16::load_f16(half + i).store(scales + i);
    for (; i < n_scales; ++i) scales[i] = f16_to_f32(half[i]);
    for (i = 0; i < n_scales; ++i) {
      const F32x16 scale = F32x16::set1(scales[i]);
      (F32x16::load_i8(src + 32 * i) * scale).store(out + 32 * i);
      (F32x16::load_i8(src + 32 * i + 16) * scale).store(out + 32 * i + 16);
    }
  }
}

// One position of a key block into another block.
template <class E>
inline void copy_lane(const std::byte* src, int src_lane, std::byte* dst, int dst_lane,
                      int head_dim) {
  const E* from = reinterpret_cast<const E*>(src) + src_lane;
  E* to = reinterpret_cast<E*>(dst) + dst_lane;
  for (int d = 0; d < head_dim; ++d) to[d * kKvLane] = from[d * kKvLane];
}

}  // namespace
}  // namespace specdec::SPECDEC_KERNELS
