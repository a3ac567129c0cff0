#include "sampling/chance.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "sampling/gumbel.h"

namespace specdec {

bool RngChance::accept(double probability) {
  // The index advances in any case, so that later coins do not depend on this probability.
  const double u = random_uniform(seed_, RngStream::kAccept, round_, accept_index_++);
  return u < probability;
}

// Walks over sums of blocks first, then inside one: two quick passes for whole vocabularies.
std::size_t RngChance::draw(std::span<const double> weights) {
  constexpr std::size_t kBlock = 512;
  const std::size_t n_blocks = (weights.size() + kBlock - 1) / kBlock;
  const auto block = [&](std::size_t b) {
    return weights.subspan(b * kBlock, std::min(kBlock, weights.size() - b * kBlock));
  };
  std::vector<double> block_sums(n_blocks);
  double sum = 0.0;
  for (std::size_t b = 0; b < n_blocks; ++b) sum += block_sums[b] = fixed_sum(block(b));
  SPECDEC_CHECK(sum > 0.0);
  const double u = random_uniform(seed_, draw_stream_, round_, draw_index_++) * sum;
  double before = 0.0;
  std::size_t last = 0;
  for (std::size_t b = 0; b < n_blocks; ++b) {
    if (block_sums[b] <= 0.0) continue;
    const std::span<const double> in_block = block(b);
    const bool inside = u < before + block_sums[b];
    double cumulative = before;
    for (std::size_t i = 0; i < in_block.size(); ++i) {
      if (in_block[i] <= 0.0) continue;
      cumulative += in_block[i];
      last = b * kBlock + i;
      if (inside && u < cumulative) return last;
    }
    if (inside) return last;  // rounding: both sums are of the same numbers
    before += block_sums[b];
  }
  return last;  // rounding pushed u * sum to the end
}

TokenId RngChance::draw_at(const Distribution& distribution, int depth) {
  return gumbel_argmax(distribution, seed_, next_position_ + static_cast<std::uint64_t>(depth));
}

}  // namespace specdec
