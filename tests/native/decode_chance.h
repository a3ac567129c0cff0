// Randomness for tests: every branch with its probability, or seeded numbers that are misused on
// purpose.
#pragma once

#include <map>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "sampling/chance.h"

namespace specdec::testing {

// Follows one branch; `next()` moves on to the next one that was not seen (depth first).
class EnumeratingChance final : public Chance {
 public:
  using Chance::draw;
  bool accept(double probability) override {
    if (probability >= 1.0) return true;
    if (probability <= 0.0) return false;
    return choose({1.0 - probability, probability}) == 1;
  }
  std::size_t draw(std::span<const double> weights) override {
    double sum = 0.0;
    for (const double w : weights) sum += w;
    std::vector<double> probabilities(weights.begin(), weights.end());
    for (double& p : probabilities) p /= sum;
    return choose(probabilities);
  }
  // By its law: the noise of a position is one independent draw.
  TokenId draw_at(const Distribution& distribution, int) override {
    return distribution.is_one_hot() ? distribution.best_token()
                                     : distribution.token(draw(distribution.probs()));
  }

  [[nodiscard]] double probability() const {
    double product = 1.0;
    for (const Node& node : path_) product *= node.probabilities[node.branch];
    return product;
  }
  // Ready for the next branch; false when all were taken.
  [[nodiscard]] bool next() {
    depth_ = 0;
    while (!path_.empty()) {
      Node& node = path_.back();
      while (++node.branch < node.probabilities.size()) {
        if (node.probabilities[node.branch] > 0.0) return true;
      }
      path_.pop_back();
    }
    return false;
  }

 private:
  struct Node {
    std::vector<double> probabilities;
    std::size_t branch;
  };
  std::size_t choose(std::vector<double> probabilities) {
    if (depth_ == path_.size()) {
      std::size_t first = 0;
      while (first < probabilities.size() && probabilities[first] <= 0.0) ++first;
      SPECDEC_CHECK(first < probabilities.size());
      path_.push_back({std::move(probabilities), first});
    }
    return path_[depth_++].branch;
  }

  std::vector<Node> path_;
  std::size_t depth_ = 0;
};

// Runs `body` once per branch; returns the law of what it returns.
template <typename Body>
auto enumerate(Body&& body) {
  using Key = decltype(body(std::declval<Chance&>()));
  std::map<Key, double> law;
  EnumeratingChance chance;
  do {
    Key key = body(chance);
    law[std::move(key)] += chance.probability();
  } while (chance.next());
  return law;
}

// The fault that keying by round prevents: every round sees the same numbers.
class ReusedChance final : public Chance {
 public:
  using Chance::draw;
  explicit ReusedChance(std::uint64_t seed) : seed_(seed) {}
  bool accept(double probability) override { return RngChance(seed_, 0, 0).accept(probability); }
  std::size_t draw(std::span<const double> weights) override {
    return RngChance(seed_, 0, 0).draw(weights);
  }
  TokenId draw_at(const Distribution& distribution, int) override {
    return RngChance(seed_, 0, 0).draw_at(distribution, 0);
  }

 private:
  std::uint64_t seed_;
};

// The trap of block verification: coins and drafts keyed by absolute position instead of by round,
// so that those behind the accepted part come again. Sampled chains only: the drafter draws first,
// then the verifier tosses its coins from the last position to the first.
class PositionKeyedChance final : public Chance {
 public:
  using Chance::draw;
  PositionKeyedChance(std::uint64_t seed, bool drafts, bool coins, std::uint64_t position)
      : seed_(seed), drafts_(drafts), coins_(coins), position_(position) {}

  // A round ended that emitted so many tokens.
  void advance(std::size_t n_emitted) {
    position_ += n_emitted;
    ++round_;
    n_drafted_ = n_coins_ = n_draws_ = 0;
  }
  bool accept(double probability) override {
    const std::uint64_t key = coins_ ? position_ + n_drafted_ - n_coins_ : 1000 * round_ + n_coins_;
    ++n_coins_;
    return random_uniform(seed_, RngStream::kAccept, key, 0) < probability;
  }
  std::size_t draw(std::span<const double> weights) override {
    if (n_coins_ > 0) {  // the verifier's: always fresh
      return RngChance(seed_, 1000 * round_ + n_draws_++, 0).draw(weights);
    }
    const std::uint64_t key = drafts_ ? position_ + n_drafted_ : 1000 * round_ + n_drafted_;
    ++n_drafted_;
    return RngChance(seed_, key, 0, RngStream::kDraft).draw(weights);
  }
  TokenId draw_at(const Distribution& distribution, int depth) override {
    return RngChance(seed_, 0, position_).draw_at(distribution, depth);
  }

 private:
  std::uint64_t seed_;
  bool drafts_, coins_;
  std::uint64_t position_;
  std::uint64_t round_ = 0, n_drafted_ = 0, n_coins_ = 0, n_draws_ = 0;
};

}  // namespace specdec::testing
