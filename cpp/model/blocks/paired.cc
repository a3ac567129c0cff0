// Heads that draft: two normed rows side by side, the embedded token's and that of what the target
// said before it, are the input of their attention or, joined to one, of their layer.
#include <cstring>

#include "model/blocks/blocks.h"

namespace specdec {

void pair_rows(const LayerRun& run) {
  const std::int64_t n = run.config.hidden_size;
  const std::int64_t stride = run.pass.paired_stride;
  float* const paired = run.rows.paired;
  const auto norm = [&](Part weight, const float* x, std::int64_t x_stride, float* dst) {
    run.rows.backend.norm({.x = x,
                           .x_stride = x_stride,
                           .n_rows = run.pass.n_rows,
                           .n = n,
                           .norm = norm_of(run, weight),
                           .dst = dst,
                           .dst_stride = stride});
  };
  const WeightMatrix* const join = run.weights.matrix(Part::kJoin);
  norm(join != nullptr ? Part::kEmbeddingNorm : Part::kAttentionNorm, paired, stride, paired);
  norm(Part::kFeatureNorm, run.rows.hidden, run.pass.hidden_stride, paired + n);
  if (join != nullptr) {
    const LinearSegment segment{
        .weight = join, .dst = run.rows.hidden, .dst_stride = run.pass.hidden_stride};
    run.rows.backend.linear({.x = paired,
                             .x_stride = stride,
                             .n_rows = run.pass.n_rows,
                             .norm = {},
                             .segments = std::span(&segment, 1)});
  }
  if (!run.config.draft_head.norm_before_residual) return;
  for (int r = 0; r < run.pass.n_rows; ++r) {
    std::memcpy(run.rows.hidden + r * run.pass.hidden_stride, paired + r * stride + n,
                static_cast<std::size_t>(n) * sizeof(float));
  }
}

}  // namespace specdec
