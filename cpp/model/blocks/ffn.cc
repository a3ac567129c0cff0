// The feed-forward network up to its activations.
#include "model/blocks/blocks.h"

namespace specdec {

void feed_forward(const LayerRun& run) {
  const int first = run.first_row();
  const float* hidden = run.rows.hidden + first * run.pass.hidden_stride;
  float* ffn = run.rows.ffn + first * run.pass.ffn_stride;
  if (run.spec.gated_ffn) {
    run.rows.backend.gated_linear({.x = hidden,
                                   .x_stride = run.pass.hidden_stride,
                                   .n_rows = run.pass.n_rows - first,
                                   .norm = norm_of(run, Part::kFfnNorm),
                                   .gate = run.weights.matrix(Part::kGate),
                                   .up = run.weights.matrix(Part::kUp),
                                   .activation = run.spec.activation,
                                   .dst = ffn,
                                   .dst_stride = run.pass.ffn_stride});
    return;
  }
  const LinearSegment segment{.weight = run.weights.matrix(Part::kUp),
                              .bias = run.weights.vector(Part::kUpBias),
                              .dst = ffn,
                              .dst_stride = run.pass.ffn_stride,
                              .activation = run.spec.activation};
  run.rows.backend.linear({.x = hidden,
                           .x_stride = run.pass.hidden_stride,
                           .n_rows = run.pass.n_rows - first,
                           .norm = norm_of(run, Part::kFfnNorm),
                           .segments = std::span(&segment, 1)});
}

}  // namespace specdec
