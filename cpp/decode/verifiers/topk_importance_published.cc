// The choice rule of TopK-ImpSpecDec as published, for comparison. NOT lossless: it picks a token
// of the draft's top K with weights target / draft, then accepts it with min(1, target / draft),
// although it was not drawn from the draft's distribution; with target = draft every one of the K
// tokens comes equally often. At temperature 0 it takes the target's best token.
//
// Unlike the published program it ends a round at the first token that is not the drafted one:
// later rows were computed for another text.
#include <algorithm>

#include "decode/verifiers/draft_distribution.h"

namespace specdec {
namespace {

class PublishedVerifier final : public Verifier {
 public:
  std::string_view name() const override { return "topk_importance_published"; }
  VerifierTraits traits() const override {
    return {.lossless = false, .trees = true, .reads_draft_probs = true, .reads_top_k = true};
  }

 private:
  Verdict decide(const DraftProposal& proposal, TargetRows& rows, Chance& chance) const override {
    Verdict verdict;
    while (true) {
      const Distribution& target = rows.at(verdict.next_row);
      const std::vector<std::int32_t> children = children_of(proposal, verdict.next_row);
      if (children.empty()) {
        verdict.next_token = chance.draw(target);
        break;
      }
      verdict.next_token = choose(target, *distribution_of(proposal, children.front()), chance);
      const int child = find_child(proposal, verdict.next_row, verdict.next_token);
      if (child < 0) break;
      verdict.accepted.push_back(child);
      verdict.next_row = child;
    }
    verdict.candidates = figures(proposal, rows);
    return verdict;
  }

  // Distributions are read even when no token was drawn from them: that is how the rule is
  // published.
  static DraftDistribution distribution_of(const DraftProposal& proposal, int i) {
    return DraftDistribution(proposal, i, /*as_drawn=*/false);
  }

  // target / draft over the draft's support.
  static std::vector<double> importances(const Distribution& target, const Distribution& draft) {
    std::vector<double> weights(draft.size());
    for (std::size_t k = 0; k < weights.size(); ++k) {
      const double q = draft.probs()[k];
      weights[k] = q > 0.0 ? target.prob(draft.token(k)) / q : 0.0;
    }
    return weights;
  }

  static TokenId choose(const Distribution& target, const Distribution& draft, Chance& chance) {
    if (target.is_one_hot()) return target.best_token();
    const std::vector<double> weights = importances(target, draft);
    if (fixed_sum(weights) > 0.0) {
      const std::size_t k = chance.draw(weights);
      if (chance.accept(weights[k])) return draft.token(k);
    }
    return target.token(chance.draw(residual_weights(target, draft)));
  }

  // Over every depth of the main chain, behind the accepted part too, as published; the expected
  // acceptance instead of coins.
  static CandidateFigures figures(const DraftProposal& proposal, TargetRows& rows) {
    CandidateFigures sum;
    for (int row = -1;;) {
      const std::vector<std::int32_t> children = children_of(proposal, row);
      if (children.empty()) return sum;
      const Distribution& target = rows.at(row);
      const DraftDistribution draft = distribution_of(proposal, children.front());
      ++sum.positions;
      double in_set = 0.0;
      for (std::size_t k = 0; k < draft->size(); ++k) in_set += target.prob(draft->token(k));
      sum.in_set += std::min(1.0, in_set);
      if (target.is_one_hot()) {
        sum.accepted += 1.0;
      } else {
        const std::vector<double> weights = importances(target, *draft);
        const double total = fixed_sum(weights);
        for (const double w : weights) {
          if (w > 0.0) sum.accepted += w / total * std::min(1.0, w);
        }
      }
      row = children.front();
    }
  }
};

}  // namespace

const Verifier& topk_importance_published_verifier() {
  static const PublishedVerifier verifier;
  return verifier;
}

}  // namespace specdec
