#include "backend/cuda/kernels/scratch.h"

#include <algorithm>

#include "backend/cuda/kernels/layout.h"

namespace specdec::cuda {

bool gates_at_once(int n_rows, DType gate, DType up) {
  return gate == up && n_rows <= kMaxSmallRows;
}

bool splits_chunks(int n_rows, int max_chunks) { return n_rows <= kMaxSmallRows && max_chunks > 1; }

std::size_t attention_scratch_bytes(int n_rows, int n_heads, int head_dim, int max_chunks) {
  if (!splits_chunks(n_rows, max_chunks)) return 0;
  const std::size_t n = static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(n_heads) *
                        static_cast<std::size_t>(max_chunks);
  return 2 * aligned(n * sizeof(float)) +
         aligned(n * static_cast<std::size_t>(head_dim) * sizeof(float));
}

HeadScratch head_scratch(int n_rows, std::int64_t n_tokens, int n_blocks, int top_k) {
  HeadScratch out;
  out.n_columns = n_blocks > 0 ? std::int64_t{n_blocks} * kHeadBlock
                               : div_up(n_tokens, kHeadBlock) * kHeadBlock;
  out.n_scans = static_cast<int>(div_up(out.n_columns, kScanColumns));
  while (out.padded_k < top_k) out.padded_k *= 2;
  const auto rows = static_cast<std::size_t>(n_rows);
  const auto scans = rows * static_cast<std::size_t>(out.n_scans);
  std::size_t used = 0;
  const auto take = [&](std::size_t n_bytes) {
    const std::size_t at = used;
    used += aligned(n_bytes);
    return at;
  };
  out.logits = take(rows * static_cast<std::size_t>(out.n_columns) * sizeof(float));
  out.keys = take(scans * static_cast<std::size_t>(out.padded_k) * sizeof(std::uint64_t));
  out.bad = take(scans * sizeof(std::int32_t));
  out.group_max = take(scans * kScanColumns / kSumColumns * sizeof(float));
  out.group_sum = take(scans * kScanColumns / kSumColumns * sizeof(float));
  out.n_bytes = used;
  return out;
}

std::size_t head_scratch_bytes(int n_rows, std::int64_t n_tokens, int n_blocks, int top_k) {
  return head_scratch(n_rows, n_tokens, n_blocks, top_k).n_bytes;
}

}  // namespace specdec::cuda
