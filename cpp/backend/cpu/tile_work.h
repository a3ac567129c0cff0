// How operations deal tile rows out to threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "backend/cpu/packed_inputs.h"
#include "backend/cpu/packed_matrix.h"
#include "base/aligned_buffer.h"
#include "base/system.h"
#include "base/thread_pool.h"

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

// The thread's own part of n things, [first, end): those that lie beside each other, because what
// is written about neighbours often shares a line of the cache.
inline std::pair<std::int64_t, std::int64_t> part_of(std::int64_t n, const TaskContext& context) {
  const std::int64_t n_threads = context.n_threads();  // few things: the caller, who is there first
  return {(n * context.thread() + n_threads - 1) / n_threads,
          (n * (context.thread() + 1) + n_threads - 1) / n_threads};
}

// Where a thread packs a tile row of a matrix that is a view; which: 0 or 1.
inline AlignedBuffer& tile_scratch(int which) {
  thread_local AlignedBuffer scratch[2];
  return scratch[which];
}

inline const PackedMatrix& packed(const WeightMatrix* matrix) {
  return static_cast<const PackedMatrix&>(*matrix);
}

// Whether groups of columns take turns on a chunk. A view is packed for all of them at once.
inline bool takes_turns(const PackedMatrix& matrix, const PackedInputs& inputs) {
  return inputs.split().n_groups() > 1 && !matrix.is_view() &&
         inputs.allocated() > turns().least_input;
}

// Calls work(group, tile) for all groups of columns and tile rows first .. end - 1.
template <class Work>
void for_tiles(std::int64_t first, std::int64_t end, const PackedInputs& inputs, bool in_turns,
               const Work& work) {
  const int n_groups = inputs.split().n_groups();
  if (in_turns) {
    for (int g = 0; g < n_groups; ++g)
      for (std::int64_t tile = first; tile < end; ++tile) work(g, tile);
  } else {
    for (std::int64_t tile = first; tile < end; ++tile)
      for (int g = 0; g < n_groups; ++g) work(g, tile);
  }
}
// A view is packed for the first of the groups that follow each other.
inline const std::uint8_t* tiles_of(const PackedMatrix& matrix, std::int64_t tile, int group,
                                    int which) {
  AlignedBuffer& scratch = tile_scratch(which);
  if (matrix.is_view() && group > 0) return scratch.as<const std::uint8_t>();
  return matrix.tile_row(tile, scratch);
}

}  // namespace specdec
