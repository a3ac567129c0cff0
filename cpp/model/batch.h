// What a Runner takes besides Batch.
#pragma once

#include <cstdint>
#include <span>

#include "base/rows.h"
#include "kv/kv_cache.h"

namespace specdec {

struct ModelConfig;

// One token for each of several sequences, which share the reading of the weights. A row has the
// bits it has alone.
struct StepBatch {
  std::span<const TokenId> tokens = {};   // [n_rows], 1 <= n_rows <= kMaxBatchRows
  std::span<KvCache* const> caches = {};  // [n_rows], distinct; row r follows caches[r]'s content
  RowOutput output = RowOutput::kLogits;
  int top_k = 1;  // of kTop: 1..kMaxTopK
};

// kInvalidArgument for what does not fit itself, the model or the cache.
void check_batch(const Batch& batch, const ModelConfig& config, const KvCache& cache);

}  // namespace specdec
