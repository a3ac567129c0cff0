// The expert that all rows use beside those they choose.
#include <algorithm>

#include "model/blocks/blocks.h"

namespace specdec {

void add_shared_expert(const LayerRun& run, const float* input, float* dst) {
  const int n_rows = run.n_rows();
  // Choices and weights of the others are done with.
  std::int32_t* chosen = run.rows.experts;
  float* weights = run.rows.expert_weights;
  std::fill_n(chosen, n_rows, 0);
  std::fill_n(weights, n_rows, 1.0F);
  if (const WeightMatrix* router = run.weights.matrix(Part::kSharedRouter); router != nullptr) {
    const LinearSegment segment{
        .weight = router, .dst = weights, .dst_stride = 1, .activation = Activation::kSigmoid};
    run.rows.backend.linear({.x = input,
                             .x_stride = run.pass.qkv_stride,
                             .n_rows = n_rows,
                             .norm = {},
                             .segments = std::span(&segment, 1)});
  }
  run.rows.backend.experts({.x = input,
                            .x_stride = run.pass.qkv_stride,
                            .n_rows = n_rows,
                            .n_used = 1,
                            .chosen = chosen,
                            .weights = weights,
                            .gate = run.weights.experts(Part::kSharedGate),
                            .up = run.weights.experts(Part::kSharedUp),
                            .down = run.weights.experts(Part::kSharedDown),
                            .activation = run.spec.activation,
                            .dst = dst,
                            .dst_stride = run.pass.hidden_stride});
}

}  // namespace specdec
