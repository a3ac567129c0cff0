// The rows of a pass by the expert they have chosen.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"

namespace specdec {

// A pair is a row and one of its experts: number row * n_used + rank.
struct ExpertGroup {
  std::int32_t expert = 0;
  std::vector<std::int32_t> pairs;  // ascending
};

// Of the experts that were chosen, in ascending order.
[[nodiscard]] std::vector<ExpertGroup> group_by_expert(const ExpertsTask& task);

// Of the biases of all experts those of one, [n]; null: there are none.
[[nodiscard]] inline const float* bias_of(const float* biases, std::int32_t expert,
                                          std::int64_t n) {
  return biases == nullptr ? nullptr : biases + expert * n;
}

// Fills chosen and weights of one row of a RouteTask from its logits. sum_exp: of n logits, the sum
// of e^(logit - max).
void choose_experts(const RouteTask& task, int row, const float* logits,
                    float (*sum_exp)(const float* logits, std::int64_t n, float max));

// dst[row] += sum of weights * the outputs of its pairs, y[pair * stride ..][n].
void combine_experts(const ExpertsTask& task, int row, const float* y, std::int64_t stride,
                     std::int64_t n);

}  // namespace specdec
