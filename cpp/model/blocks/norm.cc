// Norms before the branches of a layer, and of what a branch adds.
#include "model/blocks/blocks.h"

namespace specdec {

Norm norm_of(const LayerRun& run, Part weight) {
  if (run.weights.vector(weight) == nullptr) return {};
  return {.kind = run.config.norm_kind,
          .weight = run.weights.vector(weight),
          .bias = run.weights.vector(bias_of(weight)),
          .epsilon = run.config.norm_epsilon};
}

void add_branch(const LayerRun& run, Part weight, Part post_norm, const float* x,
                std::int64_t x_stride) {
  const int first = run.first_row();
  float* hidden = run.rows.hidden + first * run.pass.hidden_stride;
  float* branch = run.rows.qkv + first * run.pass.qkv_stride;
  const LinearSegment segment{
      .weight = run.weights.matrix(weight),
      .bias = run.weights.vector(bias_of(weight)),
      .dst = run.spec.post_norms ? branch : hidden,
      .dst_stride = run.spec.post_norms ? run.pass.qkv_stride : run.pass.hidden_stride,
      .accumulate = !run.spec.post_norms};
  run.rows.backend.linear({.x = x + first * x_stride,
                           .x_stride = x_stride,
                           .n_rows = run.pass.n_rows - first,
                           .norm = {},
                           .segments = std::span(&segment, 1)});
  if (!run.spec.post_norms) return;
  run.rows.backend.norm({.x = branch,
                         .x_stride = run.pass.qkv_stride,
                         .n_rows = run.pass.n_rows - first,
                         .n = run.config.hidden_size,
                         .norm = norm_of(run, post_norm),
                         .dst = hidden,
                         .dst_stride = run.pass.hidden_stride,
                         .accumulate = true});
}

}  // namespace specdec
