// Block verification (Sun et al. 2025, arXiv:2403.10444): the tokens of a chain are accepted or
// rejected together, never fewer in expectation than by `standard`. It looks at drafts and coins
// behind the accepted part, so none of them may be used again in a later round.
#include <algorithm>

#include "decode/verifiers/draft_distribution.h"

namespace specdec {
namespace {

class BlockVerifier final : public Verifier {
 public:
  std::string_view name() const override { return "block"; }
  VerifierTraits traits() const override { return {.lossless = true, .reads_draft_probs = true}; }

 private:
  Verdict decide(const DraftProposal& proposal, TargetRows& rows, Chance& chance) const override {
    const int n = proposal.size();
    // cover[i]: the share of drafts with these i first tokens that the target needs, p~_i there.
    std::vector<double> cover = {1.0};
    while (static_cast<int>(cover.size()) <= n && cover.back() > 0.0) {
      const int i = static_cast<int>(cover.size()) - 1;
      const TokenId token = proposal.tokens[static_cast<std::size_t>(i)];
      const DraftDistribution draft(proposal, i);
      const double draft_prob = draft->prob(token);
      cover.push_back(std::min(1.0, cover.back() * rows.at(i - 1).prob(token) / draft_prob));
    }
    // The longest prefix whose coin succeeds. Coins are independent, so the longest comes first and
    // the others need no toss.
    Verdict verdict;
    Residual left;
    int length = static_cast<int>(cover.size()) - 1;
    for (; length >= 0; --length) {
      const double covered = cover[static_cast<std::size_t>(length)];
      if (length == n) {
        if (chance.accept(covered)) break;
        continue;
      }
      left = residual(rows.at(length - 1), *DraftDistribution(proposal, length), covered);
      if (length == 0) break;
      const double rest = left.mass + 1.0 - covered;
      if (chance.accept(rest > 0.0 ? left.mass / rest : 1.0)) break;
    }
    for (int i = 0; i < length; ++i) verdict.accepted.push_back(i);
    verdict.next_row = length - 1;
    const Distribution& target = rows.at(verdict.next_row);
    verdict.next_token = length == n || !(left.mass > 0.0)
                             ? chance.draw(target)
                             : target.token(chance.draw(left.weights));
    return verdict;
  }
};

}  // namespace

const Verifier& block_verifier() {
  static const BlockVerifier verifier;
  return verifier;
}

}  // namespace specdec
