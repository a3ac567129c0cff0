// Rotary embedding and the store into the cache: one block per row and head of q, k or v.
#pragma once

#include "backend/cuda/kernels/cache-inl.h"

namespace specdec::cuda {

// Keys and values of new rows on their way into the cache.
struct NewRows {
  int n_rot;
  int interleaved;
  const float* cos_sin;
  const float* k;
  const float* v;
  std::int64_t k_stride, v_stride;
};

// Element d of a rotated query or key x of a row.
template <class G>
SPECDEC_GPU float rotated(G& g, const NewRows& rows, int row, const float* x, int d) {
  if (d >= rows.n_rot) return g.load(x + d);
  const int half = rows.n_rot / 2;
  const bool second = rows.interleaved != 0 ? d % 2 == 1 : d >= half;
  const int i = rows.interleaved != 0 ? d / 2 : d % half;
  const float* cosines = rows.cos_sin + std::int64_t{row} * rows.n_rot;
  const float c = g.load(cosines + i);
  const float s = g.load(cosines + half + i);
  const float a = g.load(x + (rows.interleaved != 0 ? 2 * i : i));
  const float b = g.load(x + (rows.interleaved != 0 ? 2 * i + 1 : i + half));
  return second ? a * s + b * c : a * c - b * s;
}

// As backend/cpu/rope_store-inl.h: a NaN scale for what is not finite. By a warp, 32 elements.
template <class G>
SPECDEC_GPU void store_quantised(G& g, const CacheParams& c, float x, std::byte* part, int position,
                                 int d, bool is_key, std::byte* element) {
  float largest = magnitude(x);
  int bad = is_finite(x) ? 0 : 1;
  SPECDEC_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) {
    largest = max_of(largest, g.shuffle_xor(largest, mask));
    bad |= g.shuffle_xor(bad, mask);
  }
  if (d >= c.head_dim) return;
  std::uint16_t scale = 0x7E00U;
  if (bad == 0) scale = float_to_half(divide(largest, 127.0F));
  if (scale == 0x7C00U) scale = 0x7BFFU;
  int code = 0;
  if (bad == 0 && scale != 0) {
    const float ratio = divide(x, half_to_float(scale));
    code = to_int8(max_of(min_of(ratio, 127.0F), -127.0F));
  }
  g.store(reinterpret_cast<std::int8_t*>(element), static_cast<std::int8_t>(code));
  if (d % 32 != 0) return;
  std::byte* scales = part + (is_key ? c.k_scales_offset : c.v_scales_offset);
  const int at = is_key ? k_scale(c, position, d) : position * c.n_scales + d / 32;
  g.store(reinterpret_cast<std::uint16_t*>(scales) + at, scale);
}

// Dimensions first .. first + 31 of a row's key or value into a slot, by a warp: the quantiser
// needs 32 neighbours.
template <class G>
SPECDEC_GPU void store_new(G& g, const NewRows& rows, const CacheParams& c, int kv_head, int row,
                           int slot, bool is_key, int first) {
  const float* x = (is_key ? rows.k + row * rows.k_stride : rows.v + row * rows.v_stride) +
                   std::int64_t{kv_head} * c.head_dim;
  std::byte* part = head_part(g, c, kv_head, slot);
  const int position = slot % kChunk;
  const int d = first + g.thread() % 32;
  const float value = d >= c.head_dim ? 0.0F : is_key ? rotated(g, rows, row, x, d) : g.load(x + d);
  const int at = is_key ? k_element(c, position, d) : position * c.v_stride + d;
  std::byte* elements = is_key ? part : part + c.v_offset;
  if (c.type == kCacheQ8) {
    store_quantised(g, c, value, part, position, d, is_key, elements + at);
  } else if (d < (is_key ? c.head_dim : c.v_stride)) {
    if (c.type == kCacheF32) {
      g.store(reinterpret_cast<float*>(elements) + at, value);
    } else {
      g.store(reinterpret_cast<std::uint16_t*>(elements) + at, float_to_half(value));
    }
  }
}

struct RopeStoreParams {
  int n_heads, n_kv_heads;
  NewRows rows;
  float* q;
  std::int64_t q_stride;
  const std::int32_t* first_slot;
  int slot_offset;
  CacheParams cache;
};

struct RopeStore {
  using Params = RopeStoreParams;
  static constexpr int kMaxThreads = 128;
  static constexpr int kMinBlocks = 2;

  // grid: rows x (heads + 2 kv heads)
  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    const int row = g.block();
    const int head = g.block_y();
    if (head < p.n_heads) {
      rotate_query(g, p, row, p.q + row * p.q_stride + std::int64_t{head} * p.cache.head_dim);
      return;
    }
    const int kv_head = (head - p.n_heads) % p.n_kv_heads;
    const bool is_key = head - p.n_heads < p.n_kv_heads;
    const int slot = g.load(p.first_slot) + p.slot_offset + row;
    const int n = is_key ? p.cache.head_dim : p.cache.v_stride;
    for (int first = g.thread() / 32 * 32; first < n; first += g.n_threads())
      store_new(g, p.rows, p.cache, kv_head, row, slot, is_key, first);
  }

 private:
  template <class G>
  static SPECDEC_GPU void rotate_query(G& g, const Params& p, int row, float* x) {
    const int half = p.rows.n_rot / 2;
    const float* cosines = p.rows.cos_sin + std::int64_t{row} * p.rows.n_rot;
    for (int i = g.thread(); i < half; i += g.n_threads()) {
      float* first = x + (p.rows.interleaved != 0 ? 2 * i : i);
      float* second = p.rows.interleaved != 0 ? first + 1 : first + half;
      const float a = g.load(static_cast<const float*>(first));
      const float b = g.load(static_cast<const float*>(second));
      const float c = g.load(cosines + i);
      const float s = g.load(cosines + half + i);
      g.store(first, a * c - b * s);
      g.store(second, a * s + b * c);
    }
  }
};

// One position of some layers from one page to another: one block per layer and kv head.
struct CopyPositionParams {
  const std::byte* src;
  std::byte* dst;
  int from, to;
  std::int64_t layer_bytes;
  CacheParams cache;
};

struct CopyPosition {
  using Params = CopyPositionParams;
  static constexpr int kMaxThreads = 128;
  static constexpr int kMinBlocks = 2;

  // grid: layers x kv heads
  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    const CacheParams& c = p.cache;
    const std::int64_t offset = g.block() * p.layer_bytes + g.block_y() * c.head_bytes;
    const std::byte* src = p.src + offset;
    std::byte* dst = p.dst + offset;
    for (int d = g.thread(); d < c.v_stride; d += g.n_threads()) {
      if (d < c.head_dim) copy(g, c.type, src, dst, k_element(c, p.from, d), k_element(c, p.to, d));
      copy(g, c.type, src + c.v_offset, dst + c.v_offset, p.from * c.v_stride + d,
           p.to * c.v_stride + d);
    }
    for (int s = g.thread(); s < c.n_scales; s += g.n_threads()) {
      copy(g, kCacheF16, src + c.k_scales_offset, dst + c.k_scales_offset,
           k_scale(c, p.from, 32 * s), k_scale(c, p.to, 32 * s));
      copy(g, kCacheF16, src + c.v_scales_offset, dst + c.v_scales_offset, p.from * c.n_scales + s,
           p.to * c.n_scales + s);
    }
  }

 private:
  template <class T, class G>
  static SPECDEC_GPU void copy_as(G& g, const std::byte* src, std::byte* dst, int from, int to) {
    g.store(reinterpret_cast<T*>(dst) + to, g.load(reinterpret_cast<const T*>(src) + from));
  }
  template <class G>
  static SPECDEC_GPU void copy(G& g, int type, const std::byte* src, std::byte* dst, int from,
                               int to) {
    if (type == kCacheF32) copy_as<std::uint32_t>(g, src, dst, from, to);
    if (type == kCacheF16) copy_as<std::uint16_t>(g, src, dst, from, to);
    if (type == kCacheQ8) copy_as<std::uint8_t>(g, src, dst, from, to);
  }
};

}  // namespace specdec::cuda
