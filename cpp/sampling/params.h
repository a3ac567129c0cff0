// How the next token is chosen from a row of logits.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/token.h"

namespace specdec {

// Warps apply in this order (sampling/warp.h): logit_bias; repetition, presence, frequency penalty;
// temperature; top-k; top-p; min-p; Gaussian noise on the survivors.
struct SamplingParams {
  double temperature = 0.0;  // >= 0; 0 takes the best token, ties to the lowest id
  int top_k = 0;             // >= 0; 0 is off
  double top_p = 1.0;        // (0, 1]; 1 is off
  double min_p = 0.0;        // [0, 1); relative to the best token's probability
  double noise_scale = 0.0;  // >= 0; two-stage sampling: standard deviation on the warped logits
  std::uint64_t seed = 0;
  double repetition_penalty =
      1.0;  // > 0; divides positive logits of seen tokens, multiplies negative ones
  double presence_penalty = 0.0;   // [-100, 100]; subtracted once from the logits of seen tokens
  double frequency_penalty = 0.0;  // [-100, 100]; subtracted once per occurrence
  int penalty_last_n = 64;         // how many tokens of the prefix count as seen; -1: all, 0: none
  std::vector<std::pair<TokenId, float>> logit_bias;  // added; -infinity bans the token

  // Throws Error(kInvalidArgument) that names the option and its range.
  void validate() const;

  [[nodiscard]] bool greedy() const { return temperature == 0.0; }
  [[nodiscard]] bool has_penalties() const {
    return penalty_last_n != 0 &&
           (repetition_penalty != 1.0 || presence_penalty != 0.0 || frequency_penalty != 0.0);
  }
  // True when the best raw logit is the answer, so that no full row is needed.
  [[nodiscard]] bool argmax_suffices() const {
    return greedy() && logit_bias.empty() && !has_penalties();
  }
  // How many of the best raw logits determine the distribution; 0: the whole row does.
  [[nodiscard]] int needs_only_top(int vocab_size) const {
    if (!logit_bias.empty() || has_penalties()) return 0;
    if (greedy()) return 1;
    return top_k > 0 && top_k < vocab_size ? top_k : 0;
  }
};

}  // namespace specdec
