// What a drafter hands to a verifier, and what comes back.
#pragma once

#include <cstdint>
#include <vector>

#include "base/token.h"
#include "sampling/distribution.h"

namespace specdec {

// A chain or a tree of candidate tokens that continue the committed text.
struct DraftProposal {
  std::vector<TokenId> tokens;
  // Index of the token that token i follows, below i; -1 is the last committed token.
  // Empty: a chain (-1, 0, 1, ...).
  std::vector<std::int32_t> parents;
  // The distribution token i was drawn from, given its path; default-made for a sibling after the
  // first of its parent, which was drawn from the first one's distribution without the siblings
  // before it. Empty: a deterministic proposal.
  std::vector<Distribution> probs;
  // Deterministic although it carries distributions: tokens are the best of `probs`, none was
  // drawn.
  bool chosen = false;
  // Length of the match that justifies the draft, for drafters that look text up; 0: unknown.
  int strength = 0;

  [[nodiscard]] int size() const { return static_cast<int>(tokens.size()); }
  [[nodiscard]] bool empty() const { return tokens.empty(); }
  [[nodiscard]] bool deterministic() const { return probs.empty() || chosen; }
  [[nodiscard]] std::int32_t parent(int i) const {
    return parents.empty() ? i - 1 : parents[static_cast<std::size_t>(i)];
  }
  [[nodiscard]] bool is_chain() const {
    for (int i = 0; i < size(); ++i) {
      if (parent(i) != i - 1) return false;
    }
    return true;
  }
};

// What verifiers of candidate sets saw of the drafter's candidates, summed over positions.
struct CandidateFigures {
  int positions = 0;      // that had candidates and were looked at
  double in_set = 0.0;    // the target's probability of the drafter's top K
  double accepted = 0.0;  // positions whose token came from the candidates, or the chance of that
};

// How a round ended: the tokens at `accepted`, then `next_token`, are emitted.
struct Verdict {
  std::vector<std::int32_t> accepted;  // proposal indices along one path, root first
  TokenId next_token = -1;             // correction or bonus, the target's own
  std::int32_t next_row = -1;  // target row it came from: the last accepted index, -1 the root row
  CandidateFigures candidates;
};

}  // namespace specdec
