#include "sampling/candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace specdec {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

bool any_left(std::span<const double> weights, double nothing) {
  return std::any_of(weights.begin(), weights.end(), [&](double w) { return w > nothing; });
}

}  // namespace

std::vector<TokenId> draw_candidates(const Distribution& distribution, int n, Chance& chance) {
  if (n <= 1 || distribution.is_one_hot()) return {chance.draw(distribution)};
  std::vector<TokenId> tokens;
  std::vector<double> weights(distribution.probs().begin(), distribution.probs().end());
  while (static_cast<int>(tokens.size()) < n && any_left(weights, 0.0)) {
    const std::size_t entry = chance.draw(weights);
    tokens.push_back(distribution.token(entry));
    weights[entry] = 0.0;
  }
  return tokens;
}

std::vector<TokenId> draw_candidates_at(const Distribution& distribution, int n, int depth,
                                        Chance& chance) {
  std::vector<TokenId> tokens = {chance.draw_at(distribution, depth)};
  if (n <= 1 || distribution.is_one_hot()) return tokens;
  std::vector<double> log_weights(distribution.log_weights().begin(),
                                  distribution.log_weights().end());
  const std::vector<TokenId> ids(distribution.tokens().begin(), distribution.tokens().end());
  while (true) {
    for (std::size_t i = 0; i < log_weights.size(); ++i) {
      if (distribution.token(i) == tokens.back()) log_weights[i] = kNever;
    }
    if (static_cast<int>(tokens.size()) >= n || !any_left(log_weights, kNever)) return tokens;
    const Distribution rest =
        ids.empty() ? Distribution::dense(log_weights) : Distribution::sparse(ids, log_weights);
    tokens.push_back(chance.draw_at(rest, depth));
  }
}

std::vector<TokenId> best_candidates(const Distribution& distribution, int n) {
  const std::span<const double> weights = distribution.log_weights();
  std::vector<std::size_t> entries;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] > kNever) entries.push_back(i);
  }
  const auto wanted = std::min(entries.size(), static_cast<std::size_t>(std::max(n, 0)));
  std::partial_sort(entries.begin(), entries.begin() + static_cast<std::ptrdiff_t>(wanted),
                    entries.end(), [&](std::size_t a, std::size_t b) {
                      return weights[a] > weights[b] || (weights[a] == weights[b] && a < b);
                    });
  std::vector<TokenId> tokens;
  for (std::size_t i = 0; i < wanted; ++i) tokens.push_back(distribution.token(entries[i]));
  return tokens;
}

}  // namespace specdec
