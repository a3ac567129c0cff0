#include "backend/stream/work_space.h"

#include <algorithm>

namespace specdec::stream {
namespace {

std::size_t align(std::size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }
std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

// The next n_bytes of a block, and what is left free behind them.
std::size_t place_part(std::size_t& end, std::size_t n_bytes, std::size_t gap_bytes,
                       std::vector<MemoryPart>& parts) {
  const std::size_t at = end;
  end += align(n_bytes) + (n_bytes > 0 ? align(gap_bytes) : 0);
  if (n_bytes > 0) parts.push_back({.offset = at, .n_bytes = n_bytes});
  return at;
}

// One launch of attention: enough for a verification and for trees; a prompt's rows go in pieces.
std::size_t attention_bytes(const WorkShape& shape, const KernelMemory& memory, int n_pages) {
  constexpr std::size_t kPrompt = std::size_t{32} << 20;
  const auto of = [&](int n_rows) {
    return memory.attention_scratch_bytes(n_rows, shape.n_heads, shape.head_dim, n_pages);
  };
  // Many rows may need less than few: they are not split.
  std::size_t most = std::min(of(shape.max_rows), kPrompt);
  for (int n_rows = 1; n_rows <= std::min(shape.max_rows, kTreeRows); ++n_rows)
    most = std::max(most, of(n_rows));
  return most;
}

}  // namespace

WorkSpace::WorkSpace(const WorkShape& shape, const KernelMemory& memory)
    : gap_bytes_(memory.gap_bytes) {
  n_pages = std::max(1, (shape.n_ctx + kKvChunk - 1) / kKvChunk);
  hidden_row = size(padded_row(shape.hidden_size));
  qkv_row = size(padded_row(shape.qkv_size));
  q_row = size(padded_row(shape.q_size));
  ffn_row = size(padded_row(shape.ffn_size));
  logits_row = size(padded_row(shape.n_tokens));

  const std::size_t n_rows = size(shape.max_rows);
  const auto rows = [n_rows](std::size_t row) { return n_rows * row * sizeof(float); };
  inputs_bytes = PassInputs(shape.max_rows, shape.max_rows, shape.n_rot,
                            chunk_bucket(n_pages * kKvChunk, n_pages), true,
                            static_cast<int>((shape.n_tokens + kHeadBlock - 1) / kHeadBlock),
                            kMaxFollowingRows, gap_bytes_)
                     .n_bytes;
  inputs = place(inputs_bytes);
  hidden = place(rows(hidden_row));
  qkv = place(rows(qkv_row));
  attention = place(rows(q_row));
  ffn = place(rows(ffn_row));
  input_rows = shape.max_rows;
  if (shape.n_experts > 0) place_experts(shape);
  for (int kind = 0; kind < kInputKinds; ++kind) {
    inputs_of[kind] =
        place(memory.input_bytes(static_cast<InputKind>(kind), input_rows, shape.max_n_in));
  }
  counters_bytes = size(shape.n_heads) * kAttentionCounters * sizeof(std::int32_t);
  counters = place(counters_bytes);
  top = place(kHeadRows * kMaxTopK * sizeof(TopToken));
  log_sum_exp = place(kHeadRows * sizeof(float));
  logits = place(kHeadRows * logits_row * sizeof(float));
  attention_bytes = stream::attention_bytes(shape, memory, n_pages);
  scratch_bytes =
      std::max(attention_bytes, memory.head_scratch_bytes(kHeadRows, shape.n_tokens, 0, kMaxTopK));
  scratch = place(scratch_bytes);
}

std::size_t WorkSpace::place(std::size_t n_bytes_of_it) {
  return place_part(n_bytes, n_bytes_of_it, gap_bytes_, parts);
}

void WorkSpace::place_experts(const WorkShape& shape) {
  const std::size_t n_pairs = size(shape.max_rows) * size(shape.n_experts_used);
  const int n_together = std::min(shape.max_rows, kExpertRows) * shape.n_experts_used;
  const std::size_t n_slots = size(expert_slots(n_together, shape.n_experts));
  chosen = place(n_pairs * sizeof(std::int32_t));
  expert_weights = place(n_pairs * sizeof(float));
  router_logits = place(size(shape.max_rows) * size(padded_row(shape.n_experts)) * sizeof(float));
  slot_experts = place(n_slots / 8 * sizeof(std::int32_t));
  slot_rows = place(n_slots * sizeof(std::int32_t));
  slots = place(n_slots * sizeof(std::int32_t));
  slot_of = place(size(n_together) * sizeof(std::int32_t));
  expert_ffn_row = size(padded_row(shape.expert_size));
  expert_ffn = place(n_slots * expert_ffn_row * sizeof(float));
  expert_out = place(n_slots * hidden_row * sizeof(float));
  input_rows = std::max(input_rows, static_cast<int>(n_slots));
}

PassInputs::PassInputs(int n_rows, int n_fed, int n_rot, int n_pages, bool tree, int n_head_blocks,
                       int n_picks, std::size_t gap_bytes) {
  const auto place = [&](std::size_t n) { return place_part(n_bytes, n, gap_bytes, parts); };
  first_slot = place(sizeof(std::int32_t));
  pages = place(size(n_pages) * sizeof(std::byte*));
  tokens = place(size(n_rows) * sizeof(std::int32_t));
  parents = place(tree ? size(n_rows) * sizeof(std::int32_t) : 0);
  cos_sin = place(size(n_fed) * size(n_rot) * sizeof(float));
  head_blocks = place(size(n_head_blocks) * sizeof(std::int32_t));
  picks = place(size(n_picks) * sizeof(std::int32_t));
}

int chunk_bucket(int n_positions, int n_pages) {
  const int n_chunks = std::max(1, (n_positions + kKvChunk - 1) / kKvChunk);
  int bucket = 1;
  while (bucket < n_chunks) bucket *= 2;
  return std::max(n_chunks, std::min(bucket, n_pages));
}

int head_block_bucket(int n_blocks, int n_all) {
  if (n_blocks == 0) return 0;
  int bucket = 16;
  while (bucket < n_blocks) bucket *= 2;
  return std::max(n_blocks, std::min(bucket, n_all));
}

}  // namespace specdec::stream
