// The distribution of one token: every token of the vocabulary, or a sorted few of them.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/token.h"

namespace specdec {

// Holds unnormalised log weights; probabilities are computed when first asked for, because a choice
// with position-keyed noise (`gumbel_argmax`) never needs them. Not for use by two threads at once.
class Distribution {
 public:
  Distribution() = default;  // empty: no support; only assignment is allowed
  ~Distribution();
  Distribution(const Distribution&) = default;
  Distribution(Distribution&&) noexcept = default;
  Distribution& operator=(const Distribution&) = default;
  Distribution& operator=(Distribution&&) noexcept = default;

  [[nodiscard]] static Distribution one_hot(TokenId token);
  // One entry per token id 0 .. n - 1. Throws Error(kNumerical) unless the largest is finite.
  [[nodiscard]] static Distribution dense(std::vector<double> log_weights);
  // The same, where the best entry, with a finite weight, is known.
  [[nodiscard]] static Distribution dense(std::vector<double> log_weights, std::size_t best);
  // `tokens` ascending and distinct, one weight each.
  [[nodiscard]] static Distribution sparse(std::vector<TokenId> tokens,
                                           std::vector<double> log_weights);
  // Probabilities need not be normalised; zeros are allowed. Entry i is token id i.
  [[nodiscard]] static Distribution from_probs(std::span<const double> probs);

  [[nodiscard]] std::size_t size() const { return log_weights_.size(); }
  [[nodiscard]] bool is_dense() const { return tokens_.empty(); }
  [[nodiscard]] bool is_one_hot() const { return log_weights_.size() == 1; }
  [[nodiscard]] TokenId token(std::size_t entry) const {
    return tokens_.empty() ? static_cast<TokenId>(entry) : tokens_[entry];
  }
  [[nodiscard]] std::span<const TokenId> tokens() const { return tokens_; }  // empty when dense
  [[nodiscard]] std::span<const double> log_weights() const { return log_weights_; }
  // Entry with the largest weight; ties go to the lowest id.
  [[nodiscard]] std::size_t best_entry() const { return best_; }
  [[nodiscard]] TokenId best_token() const { return token(best_); }

  [[nodiscard]] std::span<const double> probs() const;  // [size()], sums to 1
  [[nodiscard]] double prob(TokenId token) const;       // 0 off the support
  [[nodiscard]] bool contains(TokenId token) const;     // in the support

 private:
  void find_best();

  std::vector<TokenId> tokens_;  // ascending; empty when dense
  std::vector<double> log_weights_;
  std::size_t best_ = 0;
  mutable std::vector<double> probs_;
};

// Positive part of scale * target - draft, over the target's entries.
struct Residual {
  std::vector<double> weights;  // [target.size()], not normalised
  double mass = 0.0;            // their sum
};
[[nodiscard]] Residual residual(const Distribution& target, const Distribution& draft,
                                double scale = 1.0);

// What a rejected draft token is replaced from: the residual, or the target itself when rounding
// leaves no mass. Not normalised.
[[nodiscard]] std::vector<double> residual_weights(const Distribution& target,
                                                   const Distribution& draft, double scale = 1.0);

// Sum in a fixed order: quick, and the same bits everywhere.
[[nodiscard]] double fixed_sum(std::span<const double> values);

}  // namespace specdec
