// Speculative sampling: Leviathan et al. 2023 (arXiv:2211.17192), Chen et al. 2023
// (arXiv:2302.01318). Accept a drafted token with probability min(1, target / draft); at the first
// rejection emit from the normalised positive part of target - draft; after full acceptance emit a
// bonus token. A deterministic draft is a draw from its one-hot distribution.
#include "decode/verifiers/draft_distribution.h"

namespace specdec {
namespace {

class StandardVerifier final : public Verifier {
 public:
  std::string_view name() const override { return "standard"; }
  VerifierTraits traits() const override { return {.lossless = true, .reads_draft_probs = true}; }

 private:
  Verdict decide(const DraftProposal& proposal, TargetRows& rows, Chance& chance) const override {
    Verdict verdict;
    for (int i = 0; i < proposal.size(); ++i) {
      const TokenId token = proposal.tokens[static_cast<std::size_t>(i)];
      const Distribution& target = rows.at(i - 1);
      const DraftDistribution draft(proposal, i);
      const double draft_prob = draft->prob(token);
      if (!chance.accept(target.prob(token) / draft_prob)) {
        verdict.next_token = target.token(chance.draw(residual_weights(target, *draft)));
        return verdict;
      }
      verdict.accepted.push_back(i);
      verdict.next_row = i;
    }
    verdict.next_token = chance.draw(rows.at(verdict.next_row));
    return verdict;
  }
};

}  // namespace

const Verifier& standard_verifier() {
  static const StandardVerifier verifier;
  return verifier;
}

}  // namespace specdec
