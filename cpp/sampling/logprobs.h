// Log-probabilities to report, and the best tokens of a row.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "base/token.h"

namespace specdec {

// Of one emitted token: log-softmax of the target's row after logit_bias and penalties, at
// temperature 1.
struct TokenLogprobs {
  TokenId token = -1;
  double logprob = 0.0;
  std::vector<std::pair<TokenId, double>> top;  // best first, ties to the lowest id
};

[[nodiscard]] TokenLogprobs token_logprobs(std::span<const float> adjusted_logits, TokenId token,
                                           int n_top);

// The same from the best tokens of a row, the token among them, and the log of the sum of e^logit.
[[nodiscard]] TokenLogprobs token_logprobs(std::span<const TopToken> best, float log_sum_exp,
                                           TokenId token, int n_top);

// Ids of the k best logits, best first, ties to the lowest id; all of them when k >= size. No NaN.
[[nodiscard]] std::vector<TokenId> top_k_tokens(std::span<const float> logits, int k);

}  // namespace specdec
