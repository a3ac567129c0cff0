// The rows that a forward pass is to feed, and what is wanted of them.
#pragma once

#include <cstdint>
#include <span>

#include "base/token.h"
#include "kv/kv_cache.h"

namespace specdec {

struct ModelConfig;

// What a forward pass computes for the rows from first_output_row on.
enum class OutputKind {
  kNone,    // only the cache is filled
  kHidden,  // the residual stream after the last layer of the range, before the final norm
  kArgmax,  // best token
  kTop,     // the best top_k tokens, and the log of the sum of e^logit
  kLogits,  // the full row, and the best token
};

// Layers [first, last); last -1: to the end. Self-speculation drafts with a prefix of the layers.
struct LayerRange {
  int first = 0;
  int last = -1;
};

// Rows to feed after the content of a cache. Row r continues row parents[r], -1: the cache's last
// position; its position is the length of the cache plus its depth.
struct Batch {
  std::span<const TokenId> tokens = {};        // [n_rows], 1 <= n_rows <= kMaxBatchRows
  std::span<const std::int32_t> parents = {};  // [n_rows], each below its row; empty: a chain
  int first_output_row = 0;
  OutputKind output = OutputKind::kLogits;
  int top_k = 1;  // of kTop: 1..kMaxHeadTopK
  // Blocks of kHeadBlock token ids that the head computes, ascending and distinct; empty: all. The
  // other tokens count as impossible.
  std::span<const std::int32_t> head_blocks = {};
  LayerRange layers = {};
  // [n_rows, hidden_size] to start from instead of the embedding of `tokens`, or empty: continues a
  // pass that stopped after layer layers.first (its output kHidden).
  std::span<const float> hidden = {};
  // So many of the first rows are the cache's last positions, filled by that pass for the layers
  // below layers.first.
  int n_present = 0;
  bool keep_hidden = false;  // besides the output, the residual stream as kHidden would give it
};

inline constexpr int kMaxBatchRows = 512;

// One token for each of several sequences, which share the reading of the weights. A row has the
// bits it has alone.
struct StepBatch {
  std::span<const TokenId> tokens = {};   // [n_rows], 1 <= n_rows <= kMaxBatchRows
  std::span<KvCache* const> caches = {};  // [n_rows], distinct; row r follows caches[r]'s content
  OutputKind output = OutputKind::kLogits;
  int top_k = 1;  // of kTop: 1..kMaxHeadTopK
};

// kInvalidArgument for what does not fit itself, the model or the cache.
void check_batch(const Batch& batch, const ModelConfig& config, const KvCache& cache);

[[nodiscard]] inline bool is_chain(std::span<const std::int32_t> parents) {
  for (std::size_t r = 0; r < parents.size(); ++r) {
    if (parents[r] != static_cast<std::int32_t>(r) - 1) return false;
  }
  return true;
}

}  // namespace specdec
