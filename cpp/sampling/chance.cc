#include "sampling/chance.h"

#include "base/error.h"
#include "sampling/gumbel.h"

namespace specdec {

bool RngChance::accept(double probability) {
  // The index advances in any case, so that later coins do not depend on this probability.
  const double u = random_uniform(seed_, RngStream::kAccept, round_, accept_index_++);
  return u < probability;
}

std::size_t RngChance::draw(std::span<const double> weights) {
  double sum = 0.0;
  for (const double w : weights) sum += w;
  SPECDEC_CHECK(sum > 0.0);
  const double u = random_uniform(seed_, draw_stream_, round_, draw_index_++) * sum;
  double cumulative = 0.0;
  std::size_t last = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0.0) continue;
    cumulative += weights[i];
    last = i;
    if (u < cumulative) return i;
  }
  return last;  // rounding pushed u * sum to the end
}

TokenId RngChance::draw_at(const Distribution& distribution, int depth) {
  return gumbel_argmax(distribution, seed_, next_position_ + static_cast<std::uint64_t>(depth));
}

}  // namespace specdec
