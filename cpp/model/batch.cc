#include "model/batch.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/config.h"

namespace specdec {

namespace {

void check_rows(const Batch& batch, const ModelConfig& config) {
  const std::size_t n_rows = batch.tokens.size();
  if (n_rows < 1 || n_rows > kMaxBatchRows) {
    throw_invalid("a batch has 1 to " + std::to_string(kMaxBatchRows) + " rows, found " +
                  std::to_string(n_rows));
  }
  for (std::size_t r = 0; r < n_rows; ++r) {
    if (batch.tokens[r] < 0 || batch.tokens[r] >= config.n_tokens) {
      throw_invalid("token " + std::to_string(batch.tokens[r]) + " at index " + std::to_string(r) +
                    " is not in [0, " + std::to_string(config.n_tokens) + ")");
    }
  }
  if (!batch.parents.empty() && batch.parents.size() != n_rows) {
    throw_invalid("a batch of " + std::to_string(n_rows) + " rows has " +
                  std::to_string(batch.parents.size()) + " parents");
  }
  for (std::size_t r = 0; r < batch.parents.size(); ++r) {
    if (batch.parents[r] < -1 || batch.parents[r] >= static_cast<std::int32_t>(r)) {
      throw_invalid("parent " + std::to_string(batch.parents[r]) + " of row " + std::to_string(r) +
                    " is not an earlier row or -1");
    }
  }
}

void check_output(const Batch& batch, const ModelConfig& config) {
  const std::size_t n_rows = batch.tokens.size();
  if (batch.first_output_row < 0 || batch.first_output_row > static_cast<int>(n_rows)) {
    throw_invalid("first_output_row " + std::to_string(batch.first_output_row) + " is not in [0, " +
                  std::to_string(n_rows) + "]");
  }
  const int last = batch.layers.last < 0 ? config.n_layers : batch.layers.last;
  if (batch.layers.first < 0 || batch.layers.first >= last || last > config.n_layers) {
    throw_invalid("layers [" + std::to_string(batch.layers.first) + ", " + std::to_string(last) +
                  ") are not a part of [0, " + std::to_string(config.n_layers) + ")");
  }
  if (batch.output == RowOutput::kTop && (batch.top_k < 1 || batch.top_k > kMaxTopK)) {
    throw_invalid("top_k is " + std::to_string(batch.top_k) + "; expected 1 to " +
                  std::to_string(kMaxTopK));
  }
  std::int32_t last_block = -1;
  for (const std::int32_t block : batch.head_blocks) {
    if (block <= last_block || block * std::int64_t{kHeadBlock} >= config.n_head_tokens) {
      throw_invalid("head block " + std::to_string(block) +
                    " is out of order or behind the last token");
    }
    last_block = block;
  }
}

void check_taps(const Batch& batch, const ModelConfig& config) {
  std::int32_t last = -1;
  for (const std::int32_t tap : batch.taps) {
    if (tap <= last || tap > config.n_layers) {
      throw_invalid("tapped layers are ascending and distinct, from 0 to " +
                    std::to_string(config.n_layers) + ", found " + std::to_string(tap) +
                    (last < 0 ? "" : " after " + std::to_string(last)));
    }
    last = tap;
  }
  if (!batch.taps.empty() && (batch.layers.first != 0 || batch.layers.last >= 0))
    throw_invalid("layers are tapped in passes through all of them");
}

}  // namespace

void check_batch(const Batch& batch, const ModelConfig& config, const KvCache& cache) {
  check_rows(batch, config);
  check_output(batch, config);
  check_taps(batch, config);
  const std::size_t n_rows = batch.tokens.size();
  if (!batch.hidden.empty() &&
      batch.hidden.size() != n_rows * static_cast<std::size_t>(config.hidden_size)) {
    throw_invalid("the hidden input has " + std::to_string(batch.hidden.size()) +
                  " numbers, expected " + std::to_string(n_rows) + " rows of " +
                  std::to_string(config.hidden_size));
  }
  if (batch.n_present < 0 || batch.n_present > std::min(static_cast<int>(n_rows), cache.length())) {
    throw_invalid(std::to_string(batch.n_present) + " rows cannot be present in a batch of " +
                  std::to_string(n_rows) + " after " + std::to_string(cache.length()) +
                  " positions");
  }
  const KvShape& shape = cache.shape();
  const int n_recurrent = config.n_recurrent_layers();
  if (shape.n_layers != config.n_layers - n_recurrent || shape.n_recurrent_layers != n_recurrent ||
      shape.recurrent != config.recurrent || shape.layout.n_kv_heads != config.n_kv_heads ||
      shape.layout.head_dim != config.head_dim) {
    throw_invalid("the cache was made for a model of another shape");
  }
}

void check_parts(const PartsBatch& batch, const ModelConfig& config) {
  std::size_t n_rows = 0;
  bool silent = true;
  std::vector<const KvCache*> seen;
  for (const BatchPart& part : batch.parts) {
    SPECDEC_CHECK(part.cache != nullptr);
    check_batch({.tokens = part.tokens,
                 .parents = part.parents,
                 .output = batch.output,
                 .top_k = batch.top_k,
                 .taps = batch.taps},
                config, *part.cache);
    n_rows += part.tokens.size();
    seen.push_back(part.cache);
    if (part.silent && !silent) throw_invalid("silent parts of a pass come before the others");
    if (part.silent && !is_chain(part.parents)) throw_invalid("a silent part of a pass is a chain");
    silent = part.silent;
  }
  if (n_rows < 1 || n_rows > kMaxBatchRows) {
    throw_invalid("the parts of a pass have 1 to " + std::to_string(kMaxBatchRows) +
                  " rows together, found " + std::to_string(n_rows));
  }
  std::sort(seen.begin(), seen.end());
  if (std::adjacent_find(seen.begin(), seen.end()) != seen.end())
    throw_invalid("two parts of a pass have the same cache");
}

}  // namespace specdec
