#include "model/perplexity.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace specdec {

namespace {

// Rows whose full logits are held at once; bounds memory for large vocabularies.
constexpr int kLogitRows = 64;

double negative_log_likelihood(std::span<const float> logits, TokenId token) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return std::log(sum) + largest - static_cast<double>(logits[static_cast<std::size_t>(token)]);
}

struct Sums {
  double nll = 0;
  double nll_squared = 0;
  std::int64_t n = 0;
};

void score_window(Runner& runner, KvCache& cache, std::span<const TokenId> window,
                  const std::atomic<bool>* cancel, Sums& sums) {
  const int n_ctx = static_cast<int>(window.size());
  const int first_scored = n_ctx / 2;
  cache.truncate(0);
  for (int at = 0; at < n_ctx - 1;) {
    const bool scored = at >= first_scored;
    const int n =
        scored ? std::min(kLogitRows, n_ctx - 1 - at) : std::min(kMaxBatchRows, first_scored - at);
    const Batch batch{
        .tokens = window.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(n)),
        .output = scored ? RowOutput::kLogits : RowOutput::kNone,
        .stays = true};
    runner.forward(batch, cache, cancel);
    for (int r = 0; scored && r < n; ++r) {
      const double nll = negative_log_likelihood(runner.results().logits(r),
                                                 window[static_cast<std::size_t>(at + r + 1)]);
      sums.nll += nll;
      sums.nll_squared += nll * nll;
      ++sums.n;
    }
    at += n;
  }
}

}  // namespace

PerplexityResult measure_perplexity(Runner& runner, KvCache& cache, std::span<const TokenId> tokens,
                                    const PerplexityOptions& options) {
  if (options.n_ctx < 4)
    throw_invalid("n_ctx should be at least 4, found " + std::to_string(options.n_ctx));
  const auto n_ctx = static_cast<std::size_t>(options.n_ctx);
  int n_windows = static_cast<int>(tokens.size() / n_ctx);
  if (options.max_windows > 0) n_windows = std::min(n_windows, options.max_windows);
  if (n_windows < 1) {
    throw_invalid("the text has " + std::to_string(tokens.size()) + " tokens, one window needs " +
                  std::to_string(n_ctx));
  }
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < runner.model().config().n_tokens) continue;
    throw_invalid("token " + std::to_string(tokens[i]) + " at index " + std::to_string(i) +
                  " is not in [0, " + std::to_string(runner.model().config().n_tokens) + ")");
  }

  Sums sums;
  PerplexityResult result;
  std::vector<TokenId> window(n_ctx);
  for (int i = 0; i < n_windows; ++i) {
    const auto source = tokens.subspan(static_cast<std::size_t>(i) * n_ctx, n_ctx);
    window.assign(source.begin(), source.end());
    if (options.bos >= 0) window[0] = options.bos;
    score_window(runner, cache, window, options.cancel, sums);
    const auto n = static_cast<double>(sums.n);
    result.n_scored = sums.n;
    result.n_windows = i + 1;
    result.mean_nll = sums.nll / n;
    result.perplexity = std::exp(result.mean_nll);
    const double variance = sums.nll_squared / n - result.mean_nll * result.mean_nll;
    result.standard_error = std::sqrt(std::max(variance, 0.0) / std::max(n - 1, 1.0));
    if (options.on_progress) options.on_progress({result.n_windows, n_windows, result.perplexity});
  }
  cache.truncate(0);
  return result;
}

}  // namespace specdec
