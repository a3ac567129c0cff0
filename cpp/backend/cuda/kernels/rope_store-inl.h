// Rotary embedding and the store into the cache: one block per row and head of q, k or v.
#pragma once

#include "backend/cuda/kernels/cache-inl.h"

namespace specdec::cuda {

struct RopeStoreParams {
  int n_heads, n_kv_heads;
  int n_rot;
  int interleaved;
  const float* cos_sin;
  float* q;
  const float* k;
  const float* v;
  std::int64_t q_stride, k_stride, v_stride;
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
    const float* x = (is_key ? p.k + row * p.k_stride : p.v + row * p.v_stride) +
                     std::int64_t{kv_head} * p.cache.head_dim;
    const int slot = g.load(p.first_slot) + p.slot_offset + row;
    std::byte* part = head_part(g, p.cache, kv_head, slot);
    store(g, p, row, x, part, slot % kChunk, is_key);
  }

 private:
  template <class G>
  static SPECDEC_GPU void rotate_query(G& g, const Params& p, int row, float* x) {
    const int half = p.n_rot / 2;
    const float* cosines = p.cos_sin + std::int64_t{row} * p.n_rot;
    for (int i = g.thread(); i < half; i += g.n_threads()) {
      float* first = x + (p.interleaved != 0 ? 2 * i : i);
      float* second = p.interleaved != 0 ? first + 1 : first + half;
      const float a = g.load(static_cast<const float*>(first));
      const float b = g.load(static_cast<const float*>(second));
      const float c = g.load(cosines + i);
      const float s = g.load(cosines + half + i);
      g.store(first, a * c - b * s);
      g.store(second, a * s + b * c);
    }
  }

  // Element d of a rotated key.
  template <class G>
  static SPECDEC_GPU float rotated(G& g, const Params& p, int row, const float* x, int d) {
    if (d >= p.n_rot) return g.load(x + d);
    const int half = p.n_rot / 2;
    const bool second = p.interleaved != 0 ? d % 2 == 1 : d >= half;
    const int i = p.interleaved != 0 ? d / 2 : d % half;
    const float* cosines = p.cos_sin + std::int64_t{row} * p.n_rot;
    const float c = g.load(cosines + i);
    const float s = g.load(cosines + half + i);
    const float a = g.load(x + (p.interleaved != 0 ? 2 * i : i));
    const float b = g.load(x + (p.interleaved != 0 ? 2 * i + 1 : i + half));
    return second ? a * s + b * c : a * c - b * s;
  }

  template <class G>
  static SPECDEC_GPU void store(G& g, const Params& p, int row, const float* x, std::byte* part,
                                int position, bool is_key) {
    const CacheParams& c = p.cache;
    const int n = is_key ? c.head_dim : c.v_stride;
    std::byte* elements = is_key ? part : part + c.v_offset;
    // Whole warps take part: the quantiser needs 32 neighbours.
    for (int first = g.thread() / 32 * 32; first < n; first += g.n_threads()) {
      const int d = first + g.thread() % 32;
      const float value = d >= c.head_dim ? 0.0F
                          : is_key        ? rotated(g, p, row, x, d)
                                          : g.load(x + d);
      const int at = is_key ? k_element(c, position, d) : position * c.v_stride + d;
      if (c.type == kCacheQ8) {
        store_quantised(g, c, value, part, position, d, is_key, elements + at);
      } else if (d < n) {
        if (c.type == kCacheF32) {
          g.store(reinterpret_cast<float*>(elements) + at, value);
        } else {
          g.store(reinterpret_cast<std::uint16_t*>(elements) + at, float_to_half(value));
        }
      }
    }
  }

  // As backend/cpu/rope_store-inl.h: a NaN scale for what is not finite.
  template <class G>
  static SPECDEC_GPU void store_quantised(G& g, const CacheParams& c, float x, std::byte* part,
                                          int position, int d, bool is_key, std::byte* element) {
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
