#include "sampling/logprobs.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "base/error.h"
#include "sampling/fixed_math.h"

namespace specdec {

std::vector<TokenId> top_k_tokens(std::span<const float> logits, int k) {
  const auto better = [&](TokenId a, TokenId b) {
    const float x = logits[static_cast<std::size_t>(a)];
    const float y = logits[static_cast<std::size_t>(b)];
    return x > y || (x == y && a < b);
  };
  const auto n = logits.size();
  const auto wanted = std::min(n, static_cast<std::size_t>(std::max(k, 0)));
  std::vector<TokenId> best;
  if (wanted == 0) return best;
  if (wanted * 8 >= n) {  // a large share: select among all
    best.resize(n);
    std::iota(best.begin(), best.end(), 0);
    if (wanted < n) {
      std::nth_element(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(wanted), best.end(),
                       better);
    }
    best.resize(wanted);
  } else {  // a heap of the best so far, its worst on top: most tokens fail one comparison
    best.reserve(wanted);
    for (std::size_t i = 0; i < n; ++i) {
      const auto id = static_cast<TokenId>(i);
      if (best.size() < wanted) {
        best.push_back(id);
        std::push_heap(best.begin(), best.end(), better);
      } else if (logits[i] > logits[static_cast<std::size_t>(best.front())]) {
        std::pop_heap(best.begin(), best.end(), better);
        best.back() = id;
        std::push_heap(best.begin(), best.end(), better);
      }
    }
  }
  std::sort(best.begin(), best.end(), better);
  return best;
}

TokenLogprobs token_logprobs(std::span<const float> adjusted_logits, TokenId token, int n_top) {
  SPECDEC_CHECK(token >= 0 && static_cast<std::size_t>(token) < adjusted_logits.size());
  const auto max =
      static_cast<double>(*std::max_element(adjusted_logits.begin(), adjusted_logits.end()));
  double sum = 0.0;
  for (const float logit : adjusted_logits) sum += fixed_exp(static_cast<double>(logit) - max);
  const double log_sum = max + fixed_log(sum);
  const auto logprob = [&](TokenId id) {
    return static_cast<double>(adjusted_logits[static_cast<std::size_t>(id)]) - log_sum;
  };
  TokenLogprobs result{.token = token, .logprob = logprob(token), .top = {}};
  for (const TokenId id : top_k_tokens(adjusted_logits, n_top))
    result.top.emplace_back(id, logprob(id));
  return result;
}

TokenLogprobs token_logprobs(std::span<const TopToken> best, float log_sum_exp, TokenId token,
                             int n_top) {
  TokenLogprobs result;
  result.token = token;
  const double sum = static_cast<double>(log_sum_exp);
  for (const TopToken& top : best) {
    const double logprob = static_cast<double>(top.logit) - sum;
    if (top.token == token) result.logprob = logprob;
    if (static_cast<int>(result.top.size()) < n_top) result.top.emplace_back(top.token, logprob);
  }
  return result;
}

}  // namespace specdec
