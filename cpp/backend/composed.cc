// Operations in terms of others, so that what is new runs on every backend before it is fast.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backend/backend.h"
#include "backend/expert_groups.h"
#include "base/error.h"

namespace specdec {
namespace {

float sum_exp(const float* logits, std::int64_t n, float max) {
  float sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += std::exp(logits[i] - max);
  return sum;
}

}  // namespace

std::vector<ExpertGroup> group_by_expert(const ExpertsTask& task) {
  std::vector<std::int32_t> group_of(task.gate.size(), -1);
  const std::int32_t n_pairs = task.n_rows * task.n_used;
  for (std::int32_t pair = 0; pair < n_pairs; ++pair)
    group_of.at(static_cast<std::size_t>(task.chosen[pair])) = 0;
  std::vector<ExpertGroup> groups;
  for (std::size_t e = 0; e < group_of.size(); ++e) {
    if (group_of[e] < 0) continue;
    group_of[e] = static_cast<std::int32_t>(groups.size());
    groups.push_back({.expert = static_cast<std::int32_t>(e), .pairs = {}});
  }
  for (std::int32_t pair = 0; pair < n_pairs; ++pair) {
    const std::int32_t group = group_of[static_cast<std::size_t>(task.chosen[pair])];
    groups[static_cast<std::size_t>(group)].pairs.push_back(pair);
  }
  return groups;
}

void choose_experts(const RouteTask& task, int row, const float* logits,
                    float (*sum_exp)(const float* logits, std::int64_t n, float max)) {
  const auto n_experts = static_cast<std::int32_t>(task.router->n_out());
  std::int32_t* chosen = task.chosen + std::ptrdiff_t{row} * task.n_used;
  float* weights = task.weights + std::ptrdiff_t{row} * task.n_used;
  bool finite = true;
  for (std::int32_t e = 0; e < n_experts; ++e) finite = finite && std::isfinite(logits[e]);
  // The best so far, of equal ones the first, in order: most experts are below all of them.
  int n_chosen = 0;
  for (std::int32_t e = 0; e < n_experts; ++e) {
    if (n_chosen == task.n_used && !(logits[e] > logits[chosen[n_chosen - 1]])) continue;
    int at = n_chosen < task.n_used ? n_chosen++ : n_chosen - 1;
    for (; at > 0 && logits[e] > logits[chosen[at - 1]]; --at) chosen[at] = chosen[at - 1];
    chosen[at] = e;
  }
  if (!finite) {
    std::fill_n(weights, task.n_used, std::numeric_limits<float>::quiet_NaN());
    return;
  }
  const float max = logits[chosen[0]];
  float of_chosen = 0;
  for (int k = 0; k < task.n_used; ++k) {
    weights[k] = sum_exp(logits + chosen[k], 1, max);
    of_chosen += weights[k];
  }
  const float sum = task.of_chosen ? of_chosen : sum_exp(logits, n_experts, max);
  for (int k = 0; k < task.n_used; ++k) weights[k] /= sum;
}

void combine_experts(const ExpertsTask& task, int row, const float* y, std::int64_t stride,
                     std::int64_t n) {
  constexpr std::int64_t kPiece = 256;
  float sum[kPiece];
  float* dst = task.dst + row * task.dst_stride;
  const float* first = y + std::int64_t{row} * task.n_used * stride;
  const float* weights = task.weights + std::ptrdiff_t{row} * task.n_used;
  for (std::int64_t begin = 0; begin < n; begin += kPiece) {
    const std::int64_t size = std::min(kPiece, n - begin);
    for (std::int64_t i = 0; i < size; ++i) sum[i] = weights[0] * first[begin + i];
    for (int k = 1; k < task.n_used; ++k) {
      const float* of_expert = first + k * stride + begin;
      for (std::int64_t i = 0; i < size; ++i) sum[i] += weights[k] * of_expert[i];
    }
    for (std::int64_t i = 0; i < size; ++i) dst[begin + i] += sum[i];
  }
}

void Backend::route(const RouteTask& task) {
  const std::int64_t n_experts = task.router->n_out();
  SPECDEC_CHECK(task.n_used > 0 && task.n_used <= n_experts);
  std::vector<float> logits(static_cast<std::size_t>(task.n_rows * n_experts));
  const LinearSegment segment{
      .weight = task.router, .bias = task.bias, .dst = logits.data(), .dst_stride = n_experts};
  linear({.x = task.x,
          .x_stride = task.x_stride,
          .n_rows = task.n_rows,
          .norm = {},
          .segments = std::span(&segment, 1)});
  for (int row = 0; row < task.n_rows; ++row)
    choose_experts(task, row, logits.data() + row * n_experts, sum_exp);
}

void Backend::experts(const ExpertsTask& task) {
  const std::int64_t n_hidden = task.down[0]->n_out();
  const std::int64_t n_ffn = task.gate[0]->n_out();
  const auto n_pairs =
      static_cast<std::size_t>(task.n_rows) * static_cast<std::size_t>(task.n_used);
  std::vector<float> y(n_pairs * static_cast<std::size_t>(n_hidden));
  for (const ExpertGroup& group : group_by_expert(task)) {
    const auto expert = static_cast<std::size_t>(group.expert);
    const std::size_t n = group.pairs.size();
    std::vector<std::int32_t> rows;
    for (const std::int32_t pair : group.pairs) rows.push_back(pair / task.n_used);
    std::vector<float> ffn(n * static_cast<std::size_t>(n_ffn));
    std::vector<float> out(n * static_cast<std::size_t>(n_hidden));
    gated_linear({.x = task.x,
                  .x_stride = task.x_stride,
                  .n_rows = static_cast<int>(n),
                  .norm = {},
                  .gate = task.gate[expert].get(),
                  .up = task.up[expert].get(),
                  .activation = task.activation,
                  .dst = ffn.data(),
                  .dst_stride = n_ffn,
                  .row_index = rows.data(),
                  .gate_bias = bias_of(task.gate_bias, group.expert, n_ffn),
                  .up_bias = bias_of(task.up_bias, group.expert, n_ffn)});
    const LinearSegment down{.weight = task.down[expert].get(),
                             .bias = bias_of(task.down_bias, group.expert, n_hidden),
                             .dst = out.data(),
                             .dst_stride = n_hidden};
    linear({.x = ffn.data(),
            .x_stride = n_ffn,
            .n_rows = static_cast<int>(n),
            .norm = {},
            .segments = std::span(&down, 1)});
    for (std::size_t i = 0; i < n; ++i) {
      std::copy_n(out.data() + i * static_cast<std::size_t>(n_hidden), n_hidden,
                  y.data() + group.pairs[i] * n_hidden);
    }
  }
  for (int row = 0; row < task.n_rows; ++row)
    combine_experts(task, row, y.data(), n_hidden, n_hidden);
}

}  // namespace specdec
