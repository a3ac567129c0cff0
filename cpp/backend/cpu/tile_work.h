// How operations deal tile rows out to threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backend/cpu/packed_matrix.h"
#include "base/aligned_buffer.h"
#include "base/system.h"

namespace specdec {

// Weights a thread takes at a time: little, so that threads end together.
inline constexpr std::size_t kChunkBytes = std::size_t{32} << 10;
inline constexpr std::int64_t kMinChunks = 8;  // per thread

// Where the inputs of all groups of columns do not stay in the second cache, these take turns, each
// with all the weights that a thread has taken, a quarter of that cache, instead of coming from
// farther away for every tile row. Where they do stay, that costs (two groups: a fifth).
struct Turns {
  std::size_t least_input;  // bytes of all groups
  std::size_t chunk_bytes;
};
inline const Turns& turns() {
  static const Turns turns = [] {
    const auto cache = static_cast<std::size_t>(second_level_cache_bytes());
    return Turns{.least_input = std::max<std::size_t>(cache / 2, std::size_t{256} << 10),
                 .chunk_bytes = std::clamp(cache / 4, kChunkBytes, std::size_t{1} << 20)};
  }();
  return turns;
}

// Tile rows, of `bytes` each, that a thread takes at a time.
inline std::int64_t tiles_per_chunk(std::int64_t n_tile_rows, std::size_t bytes, int n_threads,
                                    std::size_t chunk_bytes = kChunkBytes) {
  const auto fit = static_cast<std::int64_t>(chunk_bytes / bytes);
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
