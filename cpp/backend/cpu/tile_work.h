// How operations deal tile rows out to threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backend/cpu/packed_matrix.h"
#include "base/aligned_buffer.h"

namespace specdec {

// Weights a thread takes at a time: little, so that threads end together.
inline constexpr std::size_t kChunkBytes = std::size_t{32} << 10;
inline constexpr std::int64_t kMinChunks = 8;  // per thread

// Tile rows, of `bytes` each, that a thread takes at a time.
inline std::int64_t tiles_per_chunk(std::int64_t n_tile_rows, std::size_t bytes, int n_threads) {
  const auto fit = static_cast<std::int64_t>(kChunkBytes / bytes);
  return std::max<std::int64_t>(1, std::min(fit, n_tile_rows / (kMinChunks * n_threads)));
}

// Where a thread packs a tile row of a matrix that is a view; which: 0 or 1.
inline AlignedBuffer& tile_scratch(int which) {
  thread_local AlignedBuffer scratch[2];
  return scratch[which];
}

inline const PackedMatrix& packed(const WeightMatrix* matrix) {
  return static_cast<const PackedMatrix&>(*matrix);
}

}  // namespace specdec
