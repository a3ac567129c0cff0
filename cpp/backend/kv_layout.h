// How keys and values lie in memory, shared by the cache that owns the pages and the kernels.
//
// A page holds kKvChunk positions of every layer. One layer's part of a page is, per kv head:
//   K  [kKvChunk/16][head_dim][16]     16 positions side by side: scores need no horizontal sums
//   V  [kKvChunk][v_stride]            v_stride = head_dim rounded up to 16
// F32 and F16 elements as such. Q8_0: int8 elements with one f16 scale per 32 dimensions:
//   K  scales [kKvChunk/16][head_dim/32][16], V scales [kKvChunk][head_dim/32], after the elements.
#pragma once

#include <cstddef>
#include <cstdint>

namespace specdec {

inline constexpr int kKvChunk = 256;
inline constexpr int kKvLane = 16;  // positions that lie side by side in K

enum class KvType { kF32, kF16, kQ8_0 };

[[nodiscard]] constexpr std::size_t kv_element_bytes(KvType type) {
  return type == KvType::kF32 ? 4 : type == KvType::kF16 ? 2 : 1;
}

struct KvLayout {
  KvType type = KvType::kF16;
  int n_kv_heads = 0;
  int head_dim = 0;

  [[nodiscard]] constexpr int v_stride() const { return (head_dim + 15) / 16 * 16; }
  [[nodiscard]] constexpr int n_scales() const { return type == KvType::kQ8_0 ? head_dim / 32 : 0; }
  [[nodiscard]] constexpr std::size_t k_elements_bytes() const {
    return static_cast<std::size_t>(kKvChunk) * static_cast<std::size_t>(head_dim) *
           kv_element_bytes(type);
  }
  [[nodiscard]] constexpr std::size_t v_elements_bytes() const {
    return static_cast<std::size_t>(kKvChunk) * static_cast<std::size_t>(v_stride()) *
           kv_element_bytes(type);
  }
  [[nodiscard]] constexpr std::size_t scales_bytes() const {
    return static_cast<std::size_t>(kKvChunk) * static_cast<std::size_t>(n_scales()) * 2;
  }
  // Offsets inside one kv head's part.
  [[nodiscard]] constexpr std::size_t k_offset() const { return 0; }
  [[nodiscard]] constexpr std::size_t v_offset() const { return k_elements_bytes(); }
  [[nodiscard]] constexpr std::size_t k_scales_offset() const {
    return v_offset() + v_elements_bytes();
  }
  [[nodiscard]] constexpr std::size_t v_scales_offset() const {
    return k_scales_offset() + scales_bytes();
  }
  [[nodiscard]] constexpr std::size_t head_bytes() const {
    return (v_scales_offset() + scales_bytes() + 63) / 64 * 64;
  }
  [[nodiscard]] constexpr std::size_t layer_bytes() const {
    return head_bytes() * static_cast<std::size_t>(n_kv_heads);
  }
};

// One layer of one cache: pages[i] + page_offset is that layer's part of the page of slots
// [i*kKvChunk, (i+1)*kKvChunk). On a device both the table and what it points to are its memory; in
// host memory page_offset is 0.
struct KvLayerView {
  KvLayout layout;
  std::byte* const* pages = nullptr;
  std::size_t page_offset = 0;
};

}  // namespace specdec
