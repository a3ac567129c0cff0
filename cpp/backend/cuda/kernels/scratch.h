// What operations do with their scratch memory; host side.
#pragma once

#include "backend/cuda/kernels/launch.h"

namespace specdec::cuda {

inline constexpr int kMaxSmallRows = 16;   // batches of speculation; more is a prompt
inline constexpr int kScanColumns = 2048;  // logits per block of threads
inline constexpr int kSumColumns = 128;

// Gate and up in one kernel; else one after the other.
[[nodiscard]] bool gates_at_once(int n_rows, DType gate, DType up);
// Attention with one block per chunk, else one for all chunks.
[[nodiscard]] bool splits_chunks(int n_rows, int max_chunks);

struct HeadScratch {
  std::int64_t n_columns = 0;
  int n_scans = 0;
  int padded_k = 1;
  std::size_t logits = 0, keys = 0, bad = 0, group_max = 0, group_sum = 0;  // offsets
  std::size_t n_bytes = 0;
};
[[nodiscard]] HeadScratch head_scratch(int n_rows, std::int64_t n_tokens, int n_blocks, int top_k);

}  // namespace specdec::cuda
