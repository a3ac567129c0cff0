// Copies and moves of positions within pages of the layout of backend/kv_layout.h.
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

// Fills positions [begin, end) of every layer with NaN.
void poison_positions(const KvLayout& layout, int n_layers, std::byte* page, int begin, int end);

}  // namespace specdec
