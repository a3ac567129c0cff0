// A mixture of experts in place of the feed-forward network: a router chooses a few for each row.
#include "model/blocks/blocks.h"

#include <bitset>

namespace specdec {

namespace {

// How many experts these rows have chosen.
int n_distinct(std::span<const std::int32_t> chosen) {
  std::bitset<kMaxExperts> seen;
  for (const std::int32_t expert : chosen) seen.set(static_cast<std::size_t>(expert));
  return static_cast<int>(seen.count());
}

void count_reads(std::span<const std::int32_t> chosen, int n_rows, int n_used, ExpertReads& reads) {
  const int window = n_rows <= ExpertReads::kMostRows ? n_rows : ExpertReads::kWindow;
  const auto n = static_cast<std::size_t>(window * n_used);
  double n_read = 0;
  for (int i = 0; i < n_rows / window; ++i)
    n_read += n_distinct(chosen.subspan(static_cast<std::size_t>(i) * n, n));
  reads.n_read += n_read / (n_rows / window);
  reads.n_of_row += n_used;
}

}  // namespace

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
  if (run.rows.expert_reads != nullptr) {
    const auto n = static_cast<std::size_t>(run.n_rows() * n_used);
    count_reads({chosen, n}, run.n_rows(), n_used, *run.rows.expert_reads);
  }
  run.rows.backend.experts({.x = input,
                            .x_stride = run.pass.qkv_stride,
                            .n_rows = run.n_rows(),
                            .n_used = n_used,
                            .chosen = chosen,
                            .weights = weights,
                            .gate = run.weights.experts(Part::kGateExperts),
                            .up = run.weights.experts(Part::kUpExperts),
                            .down = run.weights.experts(Part::kDownExperts),
                            .gate_bias = run.weights.vector(Part::kGateExpertsBias),
                            .up_bias = run.weights.vector(Part::kUpExpertsBias),
                            .down_bias = run.weights.vector(Part::kDownExpertsBias),
                            .activation = run.spec.activation,
                            .dst = hidden,
                            .dst_stride = run.pass.hidden_stride});
  if (!run.weights.experts(Part::kSharedGate).empty()) add_shared_expert(run, input, hidden);
}

}  // namespace specdec
