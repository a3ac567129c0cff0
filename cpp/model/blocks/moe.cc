// A mixture of experts in place of the feed-forward network: a router chooses a few for each row.
#include "model/blocks/blocks.h"

namespace specdec {

void add_experts(const LayerRun& run) {
  const int first = run.first_row();
  const int n_used = run.config.n_experts_used;
  float* hidden = run.rows.hidden + first * run.pass.hidden_stride;
  // q, k and v are done with.
  float* input = run.rows.qkv + first * run.pass.qkv_stride;
  std::int32_t* chosen = run.rows.experts + std::ptrdiff_t{first} * n_used;
  float* weights = run.rows.expert_weights + std::ptrdiff_t{first} * n_used;
  run.rows.backend.norm({.x = hidden,
                         .x_stride = run.pass.hidden_stride,
                         .n_rows = run.n_rows(),
                         .n = run.config.hidden_size,
                         .norm = norm_of(run, Part::kFfnNorm),
                         .dst = input,
                         .dst_stride = run.pass.qkv_stride});
  run.rows.backend.route({.x = input,
                          .x_stride = run.pass.qkv_stride,
                          .n_rows = run.n_rows(),
                          .router = run.weights.matrix(Part::kRouter),
                          .bias = run.weights.vector(Part::kRouterBias),
                          .n_used = n_used,
                          .of_chosen = run.spec.experts_sum_to_1,
                          .chosen = chosen,
                          .weights = weights});
  run.rows.backend.experts({.x = input,
                            .x_stride = run.pass.qkv_stride,
                            .n_rows = run.n_rows(),
                            .n_used = n_used,
                            .chosen = chosen,
                            .weights = weights,
                            .gate = run.weights.experts(Part::kGateExperts),
                            .up = run.weights.experts(Part::kUpExperts),
                            .down = run.weights.experts(Part::kDownExperts),
                            .activation = run.spec.activation,
                            .dst = hidden,
                            .dst_stride = run.pass.hidden_stride});
}

}  // namespace specdec
