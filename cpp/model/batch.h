// What a Runner takes besides Batch.
#pragma once

#include <cstdint>
#include <span>

#include "base/rows.h"
#include "kv/kv_cache.h"

namespace specdec {

struct ModelConfig;

// The rows of one of several sequences in a pass.
struct BatchPart {
  std::span<const TokenId> tokens = {};        // [n_rows], 1 or more
  std::span<const std::int32_t> parents = {};  // among the part's own rows, as in Batch
  KvCache* cache = nullptr;                    // whose content they follow
  bool silent = false;                         // no outputs, and all rows stay: a text is read
};

// Several sequences in one pass, which share the reading of the weights: a row has the bits it has
// alone. Rows count through all parts.
struct PartsBatch {
  std::span<const BatchPart> parts = {};    // silent ones first; of distinct caches
  RowOutput output = RowOutput::kLogits;    // of all rows of the others: kArgmax, kTop or kLogits
  int top_k = 1;                            // of kTop: 1..kMaxTopK
  bool keep_logits = false;                 // besides kTop, the full rows
  std::span<const std::int32_t> taps = {};  // as in Batch, of the rows of all parts
};

// kInvalidArgument for what does not fit itself, the model or the cache.
void check_batch(const Batch& batch, const ModelConfig& config, const KvCache& cache);
void check_parts(const PartsBatch& batch, const ModelConfig& config);

}  // namespace specdec
