// Mixtures of experts as launches of kernels: the host never knows what rows have chosen, so that
// a recording serves every choice.
#include <algorithm>

#include "backend/stream/backend_impl.h"
#include "base/error.h"

namespace specdec::stream {

void StreamBackend::route(const RouteTask& task) {
  const std::int64_t n_experts = task.router->n_out();
  SPECDEC_CHECK(task.n_rows <= shape_.max_rows && n_experts <= shape_.n_experts &&
                task.n_used > 0 && task.n_used <= n_experts);
  if (task.n_rows == 0) return issue_rope();
  float* logits = at<float>(space_.router_logits);
  const std::int64_t stride = padded_row(n_experts);
  const LinearSegment segment{
      .weight = task.router, .bias = task.bias, .dst = logits, .dst_stride = stride};
  linear({.x = task.x,
          .x_stride = task.x_stride,
          .n_rows = task.n_rows,
          .norm = {},
          .segments = {&segment, 1}});
  launch("the choice of experts", kernels_.choose,
         ChooseArgs{.logits = logits,
                    .stride = stride,
                    .n_rows = task.n_rows,
                    .n_experts = static_cast<int>(n_experts),
                    .n_used = task.n_used,
                    .of_chosen = task.of_chosen,
                    .chosen = task.chosen,
                    .weights = task.weights});
}

void StreamBackend::experts(const ExpertsTask& task) {
  issue_rope();
  for (int row = 0; row < task.n_rows; row += kExpertRows) {
    ExpertsTask part = task;
    part.n_rows = std::min(kExpertRows, task.n_rows - row);
    part.x += row * task.x_stride;
    part.chosen += std::ptrdiff_t{row} * task.n_used;
    part.weights += std::ptrdiff_t{row} * task.n_used;
    part.dst += row * task.dst_stride;
    add_experts(part);
  }
}

// Of few rows.
void StreamBackend::add_experts(const ExpertsTask& task) {
  SPECDEC_CHECK(task.gate.size() == 1 && task.up.size() == 1 && task.down.size() == 1);
  SPECDEC_CHECK(task.gate_bias == nullptr && task.up_bias == nullptr && task.down_bias == nullptr);
  const PackedWeight& gate = packed(task.gate[0].get());
  const PackedWeight& up = packed(task.up[0].get());
  const PackedWeight& down = packed(task.down[0].get());
  const int n_experts = gate.n_stacked;
  const int n_pairs = task.n_rows * task.n_used;
  const int n_slots = expert_slots(n_pairs, n_experts);
  SPECDEC_CHECK(n_slots <= space_.input_rows && n_experts <= shape_.n_experts &&
                up.n_stacked == n_experts && down.n_stacked == n_experts &&
                down.n_in == gate.n_out && gate.n_out <= shape_.expert_size);
  const auto* experts = at<const std::int32_t>(space_.slot_experts);
  const auto* rows = at<const std::int32_t>(space_.slot_rows);
  const auto* slots = at<const std::int32_t>(space_.slots);
  const auto* slot_of = at<const std::int32_t>(space_.slot_of);
  float* ffn = at<float>(space_.expert_ffn);
  float* out = at<float>(space_.expert_out);
  const auto ffn_stride = static_cast<std::int64_t>(space_.expert_ffn_row);
  const auto out_stride = static_cast<std::int64_t>(space_.hidden_row);
  launch("sorting rows by expert", kernels_.group,
         GroupArgs{.chosen = task.chosen,
                   .n_pairs = n_pairs,
                   .n_used = task.n_used,
                   .n_experts = n_experts,
                   .n_slots = n_slots,
                   .experts = at<std::int32_t>(space_.slot_experts),
                   .rows = at<std::int32_t>(space_.slot_rows),
                   .slots = at<std::int32_t>(space_.slots),
                   .slot_of = at<std::int32_t>(space_.slot_of)});
  GatedArgs gated{.input = {},
                  .n_rows = n_slots,
                  .gate = gate,
                  .up = up,
                  .activation = task.activation,
                  .dst = ffn,
                  .dst_stride = ffn_stride,
                  .experts = experts};
  gated.input =
      pack_input(task.x, task.x_stride, n_slots, gate.n_in, rows, {}, {gate.dtype, up.dtype});
  launch("experts: gate and up", kernels_.gated_linear, gated);
  LinearArgs linear;
  linear.n_rows = n_slots;
  linear.n_segments = 1;
  linear.experts = experts;
  linear.segments[0] = {.weight = down, .dst = out, .dst_stride = out_stride};
  linear.input = pack_input(ffn, ffn_stride, n_slots, down.n_in, slots, {}, {down.dtype});
  launch("experts: down", kernels_.linear, linear);
  launch("the sum of experts", kernels_.combine,
         CombineArgs{.y = out,
                     .y_stride = out_stride,
                     .slot_of = slot_of,
                     .weights = task.weights,
                     .n_rows = task.n_rows,
                     .n_used = task.n_used,
                     .n = down.n_out,
                     .dst = task.dst,
                     .dst_stride = task.dst_stride});
}

}  // namespace specdec::stream
