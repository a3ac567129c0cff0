// Candidate sets from the draft's top K, made exact: the idea of TopK-ImpSpecDec with the
// distribution that the candidates really came from. Takes any tree; a comb (a chain whose every
// depth has sibling leaves) is the usual one, a chain the smallest.
//
// Drawn candidates (distinct, in the order of draws without replacement): recursive rejection.
// With r = target and s = draft distribution, accept a candidate with its importance weight at that
// stage, min(1, r / s); else r becomes the normalised positive part of r - s, and s loses the
// candidate. Chosen candidates (any rule that does not look at the noise): draw from the target
// once; a child that carries the token is a hit. Each stage leaves the target's distribution
// unchanged, hence lossless.
#include <algorithm>

#include "decode/verifiers/draft_distribution.h"

namespace specdec {
namespace {

// r and s of the recursion. r is kept on the draft's support, and as one factor for the target's
// probabilities off it: O(K) unless a token off the support has to be drawn.
class Recursion {
 public:
  Recursion(const Distribution& target, const Distribution& draft)
      : target_(target), draft_(draft), s_(draft.probs().begin(), draft.probs().end()) {
    r_.resize(s_.size());
    for (std::size_t k = 0; k < r_.size(); ++k) r_[k] = target.prob(draft.token(k));
  }

  [[nodiscard]] double in_set() const { return std::min(1.0, fixed_sum(r_)); }

  // Whether the next candidate is accepted. Afterwards r and s are those of the next stage.
  [[nodiscard]] bool accept(TokenId candidate, Chance& chance) {
    const std::size_t k = entry_of(candidate);
    const double s_sum = fixed_sum(s_);
    if (chance.accept(r_[k] * s_sum / s_[k])) return true;
    if (off_.empty()) find_off_support();
    double mass = off_factor_ * off_mass_;
    for (std::size_t i = 0; i < r_.size(); ++i) {
      r_[i] = std::max(0.0, r_[i] - s_[i] / s_sum);
      mass += r_[i];
    }
    if (mass > 0.0) {
      for (double& r : r_) r /= mass;
      off_factor_ /= mass;
    } else {  // rounding left nothing of distributions that are equal: the rejection was all but
              // impossible
      for (std::size_t i = 0; i < r_.size(); ++i) r_[i] = target_.prob(draft_.token(i));
      off_factor_ = 1.0;
    }
    s_[k] = 0.0;
    return false;
  }

  // From r, when no candidate was accepted.
  [[nodiscard]] TokenId draw(Chance& chance) const {
    std::vector<double> weights = r_;
    weights.push_back(off_factor_ * off_mass_);
    const std::size_t k = chance.draw(weights);
    return k < r_.size() ? draft_.token(k) : target_.token(chance.draw(off_));
  }

 private:
  [[nodiscard]] std::size_t entry_of(TokenId token) const {
    if (draft_.is_dense()) return static_cast<std::size_t>(token);
    const std::span<const TokenId> tokens = draft_.tokens();
    const auto found = std::lower_bound(tokens.begin(), tokens.end(), token);
    return static_cast<std::size_t>(found - tokens.begin());
  }

  void find_off_support() {
    off_.assign(target_.probs().begin(), target_.probs().end());
    if (target_.is_dense()) {
      for (std::size_t k = 0; k < r_.size(); ++k) {
        const auto entry = static_cast<std::size_t>(draft_.token(k));
        if (entry < off_.size()) off_[entry] = 0.0;
      }
    } else {
      for (std::size_t t = 0; t < off_.size(); ++t) {
        if (draft_.contains(target_.token(t))) off_[t] = 0.0;
      }
    }
    off_mass_ = fixed_sum(off_);
  }

  const Distribution& target_;
  const Distribution& draft_;
  std::vector<double> r_, s_;  // [draft.size()]; s not normalised
  std::vector<double> off_;    // [target.size()]: the target off the support, once needed
  double off_mass_ = 0.0;
  double off_factor_ = 1.0;
};

class TopKImportanceVerifier final : public Verifier {
 public:
  std::string_view name() const override { return "topk_importance"; }
  VerifierTraits traits() const override {
    return {.lossless = true, .trees = true, .reads_draft_probs = true, .reads_top_k = true};
  }

 private:
  Verdict decide(const DraftProposal& proposal, TargetRows& rows, Chance& chance) const override {
    Verdict verdict;
    while (true) {
      const std::vector<std::int32_t> children = children_of(proposal, verdict.next_row);
      const Distribution& target = rows.at(verdict.next_row);
      if (children.empty()) {
        verdict.next_token = chance.draw(target);
        return verdict;
      }
      const std::int32_t hit = proposal.deterministic()
                                   ? draw_once(proposal, children, target, chance, verdict)
                                   : reject_in_turn(proposal, children, target, chance, verdict);
      ++verdict.candidates.positions;
      if (hit < 0) return verdict;
      verdict.candidates.accepted += 1.0;
      verdict.accepted.push_back(hit);
      verdict.next_row = hit;
    }
  }

 private:
  // Both return the accepted child, or -1 and set verdict.next_token.
  static std::int32_t draw_once(const DraftProposal& proposal,
                                std::span<const std::int32_t> children, const Distribution& target,
                                Chance& chance, Verdict& verdict) {
    double in_set = 0.0;
    if (!proposal.probs.empty()) {
      const Distribution& top = proposal.probs[static_cast<std::size_t>(children.front())];
      for (std::size_t k = 0; k < top.size(); ++k) in_set += target.prob(top.token(k));
    } else {
      for (const std::int32_t child : children)
        in_set += target.prob(proposal.tokens[static_cast<std::size_t>(child)]);
    }
    verdict.candidates.in_set += std::min(1.0, in_set);
    verdict.next_token = chance.draw(target);
    return find_child(proposal, verdict.next_row, verdict.next_token);
  }

  static std::int32_t reject_in_turn(const DraftProposal& proposal,
                                     std::span<const std::int32_t> children,
                                     const Distribution& target, Chance& chance, Verdict& verdict) {
    Recursion recursion(target, proposal.probs[static_cast<std::size_t>(children.front())]);
    verdict.candidates.in_set += recursion.in_set();
    for (const std::int32_t child : children) {
      const auto index = static_cast<std::size_t>(child);
      if (recursion.accept(proposal.tokens[index], chance)) return child;
    }
    verdict.next_token = recursion.draw(chance);
    return -1;
  }
};

}  // namespace

const Verifier& topk_importance_verifier() {
  static const TopKImportanceVerifier verifier;
  return verifier;
}

}  // namespace specdec
