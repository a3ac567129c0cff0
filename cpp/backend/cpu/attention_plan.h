// How an attention task is cut into units of work and where its scratch memory lies. None of it
// changes a bit of the result.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/backend.h"

namespace specdec {

inline constexpr int kMaxTileRows =
    64;                             // (row, query head) pairs that share one pass over the keys
inline constexpr int kKvStep = 32;  // positions that are converted to float together
inline constexpr int kScoreStride = kKvChunk + 16;

struct AttentionPlan {
  int group = 0;        // query heads per kv head
  int n_queries = 0;    // per kv head: n_rows * group, query t is row t / group
  int tile_rows = 0;    // queries per tile; the last tile may be smaller
  int n_tiles = 0;      // per kv head
  int n_chunks = 0;     // chunks of the longest possible row
  int first_chunk = 0;  // those before it are behind the window of every row
  int window = 0;
  bool split_chunks = false;      // a unit is one chunk of a tile, merged after a barrier
  std::size_t thread_bytes = 0;   // scratch of one thread
  std::size_t partial_bytes = 0;  // shared scratch of split_chunks, after those of the threads

  AttentionPlan(const AttentionTask& task, int n_threads);

  [[nodiscard]] int n_used() const { return n_chunks - first_chunk; }
  // The first logical position that a row of this length sees.
  [[nodiscard]] int first_seen(int length) const {
    return window == 0 || length <= window ? 0 : length - window;
  }
};

// One thread's scratch; every array starts on a cache line.
struct AttentionWorkspace {
  float* q = nullptr;          // packed by register group, scaled
  float* scores = nullptr;     // [tile_rows, kScoreStride]
  float* chunk_out = nullptr;  // [tile_rows, v_stride] of the current chunk
  float* sum_out = nullptr;    // [tile_rows, v_stride] merged
  float* chunk_max = nullptr;  // [tile_rows]
  float* chunk_sum = nullptr;
  float* max = nullptr;
  float* sum = nullptr;
  float* k = nullptr;             // [kKvStep/16, head_dim, 16]
  float* v = nullptr;             // [kKvStep, v_stride]
  std::byte* gathered = nullptr;  // 16 key positions of a tree path: elements and scales
  std::int32_t* depth = nullptr;  // [n_rows] ancestors within the batch
  std::int32_t* path = nullptr;   // [n_rows] of the current row, root first, itself last
  std::size_t n_bytes = 0;

  // base null: only n_bytes is meaningful.
  AttentionWorkspace(const AttentionTask& task, const AttentionPlan& plan, std::byte* base);
};

}  // namespace specdec
