// Copies and moves of positions within pages of the layout of backend/kv_layout.h, and out of them.
#pragma once

#include <cstddef>

#include "backend/kv_layout.h"

namespace specdec {

// Copies positions [0, n_positions) of every layer; whole key blocks, so up to 15 more.
void copy_page_prefix(const KvLayout& layout, int n_layers, const std::byte* src, std::byte* dst,
                      int n_positions);

// Copies one position of one layer to another position, perhaps of another page.
void copy_position(const KvLayout& layout, const std::byte* src_layer, int src,
                   std::byte* dst_layer, int dst);

// The first n_positions of one layer of a page without gaps and without what lies behind them (of
// keys: up to the end of their block, which is zero then): the same bytes for the same elements.
[[nodiscard]] std::size_t packed_bytes(const KvLayout& layout, int n_positions);
void pack_layer(const KvLayout& layout, const std::byte* layer, int n_positions, std::byte* packed);
void unpack_layer(const KvLayout& layout, const std::byte* packed, int n_positions,
                  std::byte* layer);

// Fills positions [begin, end) of every layer with NaN.
void poison_positions(const KvLayout& layout, int n_layers, std::byte* page, int begin, int end);

}  // namespace specdec
