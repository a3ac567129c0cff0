// Heads that draft: the input of their attention is two normed rows side by side, the embedded
// token's and that of what the target said before it.
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
  norm(Part::kAttentionNorm, paired, stride, paired);
  norm(Part::kFeatureNorm, run.rows.hidden, run.pass.hidden_stride, paired + n);
  if (!run.config.draft_head.norm_before_residual) return;
  for (int r = 0; r < run.pass.n_rows; ++r) {
    std::memcpy(run.rows.hidden + r * run.pass.hidden_stride, paired + r * stride + n,
                static_cast<std::size_t>(n) * sizeof(float));
  }
}

}  // namespace specdec
