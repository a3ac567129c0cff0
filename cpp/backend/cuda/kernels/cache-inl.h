// Elements of the KV cache (backend/kv_layout.h) on the device; offsets are computed on the host.
#pragma once

#include "backend/cuda/kernels/math-inl.h"

namespace specdec::cuda {

inline constexpr int kCacheF32 = 0, kCacheF16 = 1, kCacheQ8 = 2;  // numbers of KvType
inline constexpr int kChunk = 256;                                // kKvChunk

struct CacheParams {
  std::byte* const* pages;
  std::int64_t page_offset;  // of the layer
  std::int64_t head_bytes;
  std::int64_t v_offset, k_scales_offset, v_scales_offset;
  int type;
  int head_dim, v_stride, n_scales;
};

template <class G>
SPECDEC_GPU std::byte* head_part(G& g, const CacheParams& c, int kv_head, int slot) {
  return g.load(c.pages + slot / kChunk) + c.page_offset + kv_head * c.head_bytes;
}

SPECDEC_GPU int k_element(const CacheParams& c, int position, int d) {
  return (position / 16 * c.head_dim + d) * 16 + position % 16;
}
SPECDEC_GPU int k_scale(const CacheParams& c, int position, int d) {
  return (position / 16 * c.n_scales + d / 32) * 16 + position % 16;
}

template <int kType, class G>
SPECDEC_GPU float load_element(G& g, const std::byte* elements, int at) {
  if constexpr (kType == kCacheF32) return g.load(reinterpret_cast<const float*>(elements) + at);
  if constexpr (kType == kCacheF16)
    return half_to_float(g.load(reinterpret_cast<const std::uint16_t*>(elements) + at));
  return static_cast<float>(g.load(reinterpret_cast<const std::int8_t*>(elements) + at));
}

template <int kType>
inline constexpr int kElementBytes = kType == kCacheF32   ? 4
                                     : kType == kCacheF16 ? 2
                                                          : 1;

// part: of the head; position: within the page.
template <int kType, class G>
SPECDEC_GPU float load_key(G& g, const CacheParams& c, const std::byte* part, int position, int d) {
  const float x = load_element<kType>(g, part, k_element(c, position, d));
  if constexpr (kType != kCacheQ8) return x;
  const auto* scales = reinterpret_cast<const std::uint16_t*>(part + c.k_scales_offset);
  return x * half_to_float(g.load(scales + k_scale(c, position, d)));
}

// Dimensions d .. d + n - 1 of a key, none of which is in another block of 32 than d.
template <int kType, int n, class G>
SPECDEC_GPU void load_keys(G& g, const CacheParams& c, const std::byte* part, int position, int d,
                           float* out) {
  static_assert(32 % n == 0);
  SPECDEC_UNROLL
  for (int i = 0; i < n; ++i) out[i] = load_element<kType>(g, part, k_element(c, position, d + i));
  if constexpr (kType != kCacheQ8) return;
  const auto* scales = reinterpret_cast<const std::uint16_t*>(part + c.k_scales_offset);
  const float scale = half_to_float(g.load(scales + k_scale(c, position, d)));
  SPECDEC_UNROLL
  for (int i = 0; i < n; ++i) out[i] *= scale;
}

template <int kType, class G>
SPECDEC_GPU float load_value(G& g, const CacheParams& c, const std::byte* part, int position,
                             int d) {
  const float x = load_element<kType>(g, part + c.v_offset, position * c.v_stride + d);
  if constexpr (kType != kCacheQ8) return x;
  const auto* scales = reinterpret_cast<const std::uint16_t*>(part + c.v_scales_offset);
  return x * half_to_float(g.load(scales + position * c.n_scales + d / 32));
}

// Dimension d of positions position .. position + n - 1 of a page.
template <int kType, int n, class G>
SPECDEC_GPU void load_values(G& g, const CacheParams& c, const std::byte* part, int position, int d,
                             float* out) {
  const std::byte* first =
      part + c.v_offset +
      std::int64_t{position * c.v_stride + d} * std::int64_t{kElementBytes<kType>};
  SPECDEC_UNROLL
  for (int i = 0; i < n; ++i) out[i] = load_element<kType>(g, first, i * c.v_stride);
  if constexpr (kType != kCacheQ8) return;
  const auto* scales = reinterpret_cast<const std::uint16_t*>(part + c.v_scales_offset) +
                       std::int64_t{position * c.n_scales + d / 32};
  SPECDEC_UNROLL
  for (int i = 0; i < n; ++i) out[i] *= half_to_float(g.load(scales + i * c.n_scales));
}

}  // namespace specdec::cuda
