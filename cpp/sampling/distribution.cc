#include "sampling/distribution.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "sampling/exp_rows.h"
#include "sampling/fixed_math.h"
#include "sampling/row_buffers.h"

namespace specdec {
namespace {

void scale_all(double* values, double factor, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) values[i] *= factor;
}

void subtract_all(double* values, const double* other, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) values[i] = std::max(0.0, values[i] - other[i]);
}

constexpr std::size_t kSumLanes = 16;

void add_lanes(const double* values, std::size_t n_groups, double* lanes) {
  double sums[kSumLanes] = {};
  for (std::size_t g = 0; g < n_groups; ++g) {
    for (std::size_t lane = 0; lane < kSumLanes; ++lane) {
      sums[lane] += values[g * kSumLanes + lane];
    }
  }
  for (std::size_t lane = 0; lane < kSumLanes; ++lane) lanes[lane] = sums[lane];
}

}  // namespace

double fixed_sum(std::span<const double> values) {
  double sum = 0.0;
  std::size_t i = 0;
  if (values.size() >= 2 * kSumLanes) {
    double lanes[kSumLanes];
    add_lanes(values.data(), values.size() / kSumLanes, lanes);
    for (const double lane : lanes) sum += lane;
    i = values.size() / kSumLanes * kSumLanes;
  }
  for (; i < values.size(); ++i) sum += values[i];
  return sum;
}

Distribution::~Distribution() {
  recycle_row_buffer(std::move(log_weights_));
  recycle_row_buffer(std::move(probs_));
}

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

Distribution Distribution::dense(std::vector<double> log_weights, std::size_t best) {
  SPECDEC_CHECK(best < log_weights.size());
  Distribution d;
  d.log_weights_ = std::move(log_weights);
  d.best_ = best;
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
  probs_ = take_row_buffer(n);
  exp_row(log_weights_.data(), log_weights_[best_], probs_.data(), n);
  scale_all(probs_.data(), 1.0 / fixed_sum(probs_), n);
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

bool Distribution::contains(TokenId token) const {
  if (token < 0) return false;
  if (tokens_.empty()) return static_cast<std::size_t>(token) < log_weights_.size();
  return std::binary_search(tokens_.begin(), tokens_.end(), token);
}

Residual residual(const Distribution& target, const Distribution& draft, double scale) {
  const std::span<const double> target_probs = target.probs();
  const std::span<const double> draft_probs = draft.probs();
  const std::size_t n = target_probs.size();
  Residual result;
  result.weights = take_row_buffer(n);
  std::copy(target_probs.begin(), target_probs.end(), result.weights.begin());
  double* weights = result.weights.data();
  if (scale != 1.0) scale_all(weights, scale, n);
  if (target.is_dense() && draft.is_dense() && draft.size() <= n) {
    subtract_all(weights, draft_probs.data(), draft.size());
  } else if (target.is_dense()) {
    for (std::size_t d = 0; d < draft.size(); ++d) {
      const auto t = static_cast<std::size_t>(draft.token(d));
      if (t < n) weights[t] = std::max(0.0, weights[t] - draft_probs[d]);
    }
  } else {
    for (std::size_t t = 0; t < n; ++t) {
      weights[t] = std::max(0.0, weights[t] - draft.prob(target.token(t)));
    }
  }
  result.mass = fixed_sum(result.weights);
  return result;
}

std::vector<double> residual_weights(const Distribution& target, const Distribution& draft,
                                     double scale) {
  Residual result = residual(target, draft, scale);
  if (result.mass > 0.0) return std::move(result.weights);
  return {target.probs().begin(), target.probs().end()};
}

}  // namespace specdec
