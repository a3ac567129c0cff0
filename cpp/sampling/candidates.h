// Several distinct tokens of one distribution: the candidates for one position.
#pragma once

#include <vector>

#include "base/token.h"
#include "sampling/chance.h"
#include "sampling/distribution.h"

namespace specdec {

// n draws without replacement, in the order drawn: the order of Gumbel-top-n. Fewer when the
// support is smaller.
[[nodiscard]] std::vector<TokenId> draw_candidates(const Distribution& distribution, int n,
                                                   Chance& chance);

// The same with the noise fixed for the position `depth`: the first is chance.draw_at(distribution,
// depth).
[[nodiscard]] std::vector<TokenId> draw_candidates_at(const Distribution& distribution, int n,
                                                      int depth, Chance& chance);

// The n most probable tokens, best first, ties to the lowest id; none of probability 0.
[[nodiscard]] std::vector<TokenId> best_candidates(const Distribution& distribution, int n);

}  // namespace specdec
