// What verifiers that read draft probabilities share.
#pragma once

#include <optional>

#include "decode/verifier.h"

namespace specdec {

// The distribution drafted token i was drawn from; of a deterministic proposal all on that token,
// unless `as_drawn` is false and it carries a distribution nevertheless. The proposal must outlive
// it.
class DraftDistribution {
 public:
  DraftDistribution(const DraftProposal& proposal, int i, bool as_drawn = true) {
    const auto index = static_cast<std::size_t>(i);
    if (as_drawn ? proposal.deterministic() : proposal.probs.empty()) {
      one_hot_ = Distribution::one_hot(proposal.tokens[index]);
    } else {
      distribution_ = &proposal.probs[index];
    }
  }
  const Distribution& operator*() const {
    return distribution_ != nullptr ? *distribution_ : *one_hot_;
  }
  const Distribution* operator->() const { return &**this; }

 private:
  const Distribution* distribution_ = nullptr;
  std::optional<Distribution> one_hot_;
};

}  // namespace specdec
