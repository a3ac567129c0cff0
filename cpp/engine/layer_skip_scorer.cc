#include "engine/layer_skip_scorer.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace specdec {

LayerSkipScorer::LayerSkipScorer(ModelScorer& target, int n_layers)
    : target_(target), n_layers_(n_layers) {
  if (n_layers < 1 || n_layers >= target.n_layers()) {
    throw_invalid("draft_layers must be in [1, " + std::to_string(target.n_layers() - 1) +
                  "] for a model of " + std::to_string(target.n_layers()) + " layers, got " +
                  std::to_string(n_layers));
  }
}

void LayerSkipScorer::forward(const Batch& batch) {
  SPECDEC_CHECK(batch.parents.empty());  // drafts are chains here
  const int n_rows = static_cast<int>(batch.tokens.size());
  const int held = target_.length() + target_.n_drafted();
  SPECDEC_CHECK(length_ <= held);
  const int n_skipped = std::min(n_rows, held - length_);
  // Rows that are skipped have no output.
  SPECDEC_CHECK(batch.output == RowOutput::kNone || batch.first_output_row >= n_skipped);
  if (n_skipped < n_rows) {
    Batch rest = batch;
    rest.tokens = batch.tokens.subspan(static_cast<std::size_t>(n_skipped));
    rest.first_output_row = std::max(batch.first_output_row - n_skipped, 0);
    target_.draft(rest, n_layers_);
  }
  n_skipped_ = n_skipped;
  length_ += n_rows;
}

void LayerSkipScorer::truncate(int n) {
  target_.truncate_drafted(std::max(n - target_.length(), 0));
  length_ = n;
}

void LayerSkipScorer::keep_path(std::span<const std::int32_t>) {
  SPECDEC_CHECK(!"a chain is truncated");
}

}  // namespace specdec
