#include "kv/page_ops.h"

#include <array>
#include <cstdint>
#include <cstring>

namespace specdec {
namespace {

std::size_t bytes(int n) { return static_cast<std::size_t>(n); }

// Sizes of one kv head's arrays, in bytes.
struct Strides {
  std::size_t k_block;   // 16 positions
  std::size_t k_scales;  // scales of 16 positions
  std::size_t v_row;
  std::size_t v_scales;  // of one position

  explicit Strides(const KvLayout& layout)
      : k_block(bytes(layout.head_dim) * kKvLane * kv_element_bytes(layout.type)),
        k_scales(bytes(layout.n_scales()) * kKvLane * 2),
        v_row(bytes(layout.v_stride()) * kv_element_bytes(layout.type)),
        v_scales(bytes(layout.n_scales()) * 2) {}
};

// n elements at a stride of kKvLane.
template <class E>
void copy_lane(const std::byte* src, int src_lane, std::byte* dst, int dst_lane, int n) {
  const E* from = reinterpret_cast<const E*>(src) + src_lane;
  E* to = reinterpret_cast<E*>(dst) + dst_lane;
  for (int d = 0; d < n; ++d) to[d * kKvLane] = from[d * kKvLane];
}

void copy_key_lane(KvType type, const std::byte* src, int src_lane, std::byte* dst, int dst_lane,
                   int n) {
  switch (type) {
    case KvType::kF32:
      return copy_lane<std::uint32_t>(src, src_lane, dst, dst_lane, n);
    case KvType::kF16:
      return copy_lane<std::uint16_t>(src, src_lane, dst, dst_lane, n);
    case KvType::kQ8_0:
      return copy_lane<std::uint8_t>(src, src_lane, dst, dst_lane, n);
  }
}

}  // namespace

void copy_page_prefix(const KvLayout& layout, int n_layers, const std::byte* src, std::byte* dst,
                      int n_positions) {
  const Strides strides(layout);
  const std::size_t n = bytes(n_positions);
  const std::size_t n_blocks = bytes((n_positions + kKvLane - 1) / kKvLane);
  const std::size_t n_heads = bytes(n_layers) * bytes(layout.n_kv_heads);
  for (std::size_t head = 0; head < n_heads; ++head) {
    const auto copy = [&](std::size_t offset, std::size_t n_bytes) {
      std::memcpy(dst + head * layout.head_bytes() + offset,
                  src + head * layout.head_bytes() + offset, n_bytes);
    };
    copy(layout.k_offset(), n_blocks * strides.k_block);
    copy(layout.v_offset(), n * strides.v_row);
    copy(layout.k_scales_offset(), n_blocks * strides.k_scales);
    copy(layout.v_scales_offset(), n * strides.v_scales);
  }
}

void copy_position(const KvLayout& layout, const std::byte* src_layer, int src,
                   std::byte* dst_layer, int dst) {
  const Strides strides(layout);
  const std::size_t src_block = bytes(src / kKvLane);
  const std::size_t dst_block = bytes(dst / kKvLane);
  for (int head = 0; head < layout.n_kv_heads; ++head) {
    const std::byte* from = src_layer + bytes(head) * layout.head_bytes();
    std::byte* to = dst_layer + bytes(head) * layout.head_bytes();
    copy_key_lane(layout.type, from + layout.k_offset() + src_block * strides.k_block,
                  src % kKvLane, to + layout.k_offset() + dst_block * strides.k_block,
                  dst % kKvLane, layout.head_dim);
    copy_lane<std::uint16_t>(from + layout.k_scales_offset() + src_block * strides.k_scales,
                             src % kKvLane,
                             to + layout.k_scales_offset() + dst_block * strides.k_scales,
                             dst % kKvLane, layout.n_scales());
    std::memcpy(to + layout.v_offset() + bytes(dst) * strides.v_row,
                from + layout.v_offset() + bytes(src) * strides.v_row, strides.v_row);
    std::memcpy(to + layout.v_scales_offset() + bytes(dst) * strides.v_scales,
                from + layout.v_scales_offset() + bytes(src) * strides.v_scales, strides.v_scales);
  }
}

namespace {

struct PackedPart {
  std::size_t offset;   // in the head's part of a page
  std::size_t n_bytes;  // of the positions
};

std::array<PackedPart, 4> packed_parts(const KvLayout& layout, int n_positions) {
  const Strides strides(layout);
  const std::size_t n = bytes(n_positions);
  const std::size_t n_blocks = bytes((n_positions + kKvLane - 1) / kKvLane);
  return {{{layout.k_offset(), n_blocks * strides.k_block},
           {layout.v_offset(), n * strides.v_row},
           {layout.k_scales_offset(), n_blocks * strides.k_scales},
           {layout.v_scales_offset(), n * strides.v_scales}}};
}

// Of n elements a lane, those of the lanes from `first` on.
void clear_lanes(std::byte* block, int n, std::size_t element_bytes, int first) {
  for (int d = 0; d < n; ++d)
    std::memset(block + bytes(d * kKvLane + first) * element_bytes, 0,
                bytes(kKvLane - first) * element_bytes);
}

}  // namespace

std::size_t packed_bytes(const KvLayout& layout, int n_positions) {
  std::size_t n = 0;
  for (const PackedPart& part : packed_parts(layout, n_positions)) n += part.n_bytes;
  return n * bytes(layout.n_kv_heads);
}

void pack_layer(const KvLayout& layout, const std::byte* layer, int n_positions,
                std::byte* packed) {
  const Strides strides(layout);
  const auto parts = packed_parts(layout, n_positions);
  const int n_lanes = n_positions % kKvLane;
  for (int head = 0; head < layout.n_kv_heads; ++head) {
    const std::byte* from = layer + bytes(head) * layout.head_bytes();
    for (const PackedPart& part : parts) {
      std::memcpy(packed, from + part.offset, part.n_bytes);
      packed += part.n_bytes;
      if (n_lanes == 0 || part.n_bytes == 0) continue;
      if (part.offset == layout.k_offset()) {
        clear_lanes(packed - strides.k_block, layout.head_dim, kv_element_bytes(layout.type),
                    n_lanes);
      } else if (part.offset == layout.k_scales_offset()) {
        clear_lanes(packed - strides.k_scales, layout.n_scales(), 2, n_lanes);
      }
    }
  }
}

void unpack_layer(const KvLayout& layout, const std::byte* packed, int n_positions,
                  std::byte* layer) {
  const auto parts = packed_parts(layout, n_positions);
  for (int head = 0; head < layout.n_kv_heads; ++head) {
    std::byte* to = layer + bytes(head) * layout.head_bytes();
    for (const PackedPart& part : parts) {
      std::memcpy(to + part.offset, packed, part.n_bytes);
      packed += part.n_bytes;
    }
  }
}

void poison_positions(const KvLayout& layout, int n_layers, std::byte* page, int begin, int end) {
  const Strides strides(layout);
  const std::size_t element = kv_element_bytes(layout.type);
  const std::size_t n_heads = bytes(n_layers) * bytes(layout.n_kv_heads);
  for (std::size_t index = 0; index < n_heads; ++index) {
    std::byte* head = page + index * layout.head_bytes();
    for (int position = begin; position < end; ++position) {
      const std::size_t block = bytes(position / kKvLane);
      const std::size_t lane = bytes(position % kKvLane);
      for (std::size_t d = 0; d < bytes(layout.head_dim); ++d) {
        std::memset(
            head + layout.k_offset() + block * strides.k_block + (d * kKvLane + lane) * element,
            0xFF, element);
      }
      for (std::size_t g = 0; g < bytes(layout.n_scales()); ++g) {
        std::memset(
            head + layout.k_scales_offset() + block * strides.k_scales + (g * kKvLane + lane) * 2,
            0xFF, 2);
      }
      std::memset(head + layout.v_offset() + bytes(position) * strides.v_row, 0xFF, strides.v_row);
      std::memset(head + layout.v_scales_offset() + bytes(position) * strides.v_scales, 0xFF,
                  strides.v_scales);
    }
  }
}

}  // namespace specdec
