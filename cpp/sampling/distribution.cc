#include "sampling/distribution.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "sampling/fixed_math.h"

namespace specdec {

Distribution Distribution::one_hot(TokenId token) {
  SPECDEC_CHECK(token >= 0);
  Distribution d;
  d.tokens_ = {token};
  d.log_weights_ = {0.0};
  d.probs_ = {1.0};
  return d;
}

Distribution Distribution::dense(std::vector<double> log_weights) {
  Distribution d;
  d.log_weights_ = std::move(log_weights);
  d.find_best();
  return d;
}

Distribution Distribution::sparse(std::vector<TokenId> tokens, std::vector<double> log_weights) {
  SPECDEC_CHECK(tokens.size() == log_weights.size() && !tokens.empty());
  Distribution d;
  d.tokens_ = std::move(tokens);
  d.log_weights_ = std::move(log_weights);
  d.find_best();
  return d;
}

Distribution Distribution::from_probs(std::span<const double> probs) {
  std::vector<double> log_weights(probs.size());
  double sum = 0.0;
  for (const double p : probs) sum += p;
  for (std::size_t i = 0; i < probs.size(); ++i) log_weights[i] = fixed_log(probs[i] / sum);
  Distribution d = dense(std::move(log_weights));
  d.probs_.assign(probs.begin(), probs.end());  // exactly what was given, not exp(log(p))
  for (double& p : d.probs_) p /= sum;
  return d;
}

void Distribution::find_best() {
  SPECDEC_CHECK(!log_weights_.empty());
  const auto best = std::max_element(log_weights_.begin(), log_weights_.end());
  best_ = static_cast<std::size_t>(best - log_weights_.begin());
  if (!std::isfinite(*best)) {
    throw Error(ErrorCode::kNumerical, "a row of logits has no finite maximum");
  }
}

std::span<const double> Distribution::probs() const {
  if (!probs_.empty() || log_weights_.empty()) return probs_;
  const std::size_t n = log_weights_.size();
  const double max = log_weights_[best_];
  probs_.resize(n);
  for (std::size_t i = 0; i < n; ++i) probs_[i] = fixed_exp(log_weights_[i] - max);
  // Four sums in a fixed order: quick, and the same bits everywhere.
  double sums[4] = {0.0, 0.0, 0.0, 0.0};
  std::size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (std::size_t lane = 0; lane < 4; ++lane) sums[lane] += probs_[i + lane];
  }
  for (; i < n; ++i) sums[0] += probs_[i];
  const double inverse = 1.0 / ((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (double& p : probs_) p *= inverse;
  return probs_;
}

double Distribution::prob(TokenId token) const {
  if (token < 0) return 0.0;
  if (tokens_.empty()) {
    const auto entry = static_cast<std::size_t>(token);
    return entry < log_weights_.size() ? probs()[entry] : 0.0;
  }
  const auto found = std::lower_bound(tokens_.begin(), tokens_.end(), token);
  if (found == tokens_.end() || *found != token) return 0.0;
  return probs()[static_cast<std::size_t>(found - tokens_.begin())];
}

std::vector<double> residual_weights(const Distribution& target, const Distribution& draft) {
  const std::span<const double> target_probs = target.probs();
  const std::span<const double> draft_probs = draft.probs();
  std::vector<double> weights(target_probs.begin(), target_probs.end());
  double mass = 0.0;
  std::size_t d = 0;  // both lists ascend by token: one merge
  for (std::size_t t = 0; t < weights.size(); ++t) {
    while (d < draft.size() && draft.token(d) < target.token(t)) ++d;
    if (d < draft.size() && draft.token(d) == target.token(t)) {
      weights[t] = std::max(0.0, weights[t] - draft_probs[d]);
    }
    mass += weights[t];
  }
  if (!(mass > 0.0)) return {target_probs.begin(), target_probs.end()};
  for (double& w : weights) w /= mass;
  return weights;
}

}  // namespace specdec
