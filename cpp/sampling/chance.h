// The only source of randomness that verifiers and drafters see.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/rng.h"
#include "base/token.h"
#include "sampling/distribution.h"

namespace specdec {

// Production draws numbers; tests enumerate every branch of the compiled code.
class Chance {
 public:
  virtual ~Chance() = default;

  // True with the given probability; certain outcomes (<= 0, >= 1) are never random.
  [[nodiscard]] virtual bool accept(double probability) = 0;
  // Index with probability weights[i] / sum; an index of weight 0 never comes. The sum must be
  // positive.
  [[nodiscard]] virtual std::size_t draw(std::span<const double> weights) = 0;
  // A token of `distribution`, chosen with the fixed noise of the position `depth` tokens after the
  // last committed one (0 = the next token).
  [[nodiscard]] virtual TokenId draw_at(const Distribution& distribution, int depth) = 0;

  [[nodiscard]] TokenId draw(const Distribution& distribution) {
    return distribution.is_one_hot() ? distribution.best_token()
                                     : distribution.token(draw(distribution.probs()));
  }
};

// Numbers keyed by (seed, stream, round, index): coins and draws of one round are never used again.
// `draw_at` is keyed by the absolute position instead.
class RngChance final : public Chance {
 public:
  // next_position: absolute index of the next token to be emitted.
  // draw_stream: kResidual for verifiers, kDraft for drafters.
  RngChance(std::uint64_t seed, std::uint64_t round, std::uint64_t next_position,
            RngStream draw_stream = RngStream::kResidual)
      : seed_(seed), round_(round), next_position_(next_position), draw_stream_(draw_stream) {}

  using Chance::draw;
  [[nodiscard]] bool accept(double probability) override;
  [[nodiscard]] std::size_t draw(std::span<const double> weights) override;
  [[nodiscard]] TokenId draw_at(const Distribution& distribution, int depth) override;

 private:
  std::uint64_t seed_;
  std::uint64_t round_;
  std::uint64_t next_position_;
  RngStream draw_stream_;
  std::uint32_t accept_index_ = 0;
  std::uint32_t draw_index_ = 0;
};

}  // namespace specdec
