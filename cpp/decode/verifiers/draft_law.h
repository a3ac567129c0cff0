// What verifiers that read draft probabilities share.
#pragma once

#include <optional>

#include "decode/verifier.h"

namespace specdec {

// The law drafted token i was drawn from; of a deterministic proposal all on that token, unless
// `as_drawn` is false and it carries a law nevertheless. The proposal must outlive it.
class DraftLaw {
 public:
  DraftLaw(const DraftProposal& proposal, int i, bool as_drawn = true) {
    const auto index = static_cast<std::size_t>(i);
    if (as_drawn ? proposal.deterministic() : proposal.probs.empty()) {
      one_hot_ = Distribution::one_hot(proposal.tokens[index]);
    } else {
      law_ = &proposal.probs[index];
    }
  }
  const Distribution& operator*() const { return law_ != nullptr ? *law_ : *one_hot_; }
  const Distribution* operator->() const { return &**this; }

 private:
  const Distribution* law_ = nullptr;
  std::optional<Distribution> one_hot_;
};

}  // namespace specdec
