// Longest path of drafted tokens that equals the target's best token at every step.
#include "decode/verifier.h"

namespace specdec {
namespace {

class GreedyVerifier final : public Verifier {
 public:
  std::string_view name() const override { return "greedy"; }
  VerifierTraits traits() const override {
    return {.lossless = true, .trees = true, .greedy_only = true};
  }

 private:
  Verdict decide(const DraftProposal& proposal, TargetRows& rows, Chance&) const override {
    Verdict verdict;
    while (true) {
      verdict.next_token = rows.at(verdict.next_row).best_token();
      const int child = find_child(proposal, verdict.next_row, verdict.next_token);
      if (child < 0) return verdict;
      verdict.accepted.push_back(child);
      verdict.next_row = child;
    }
  }
};

}  // namespace

const Verifier& greedy_verifier() {
  static const GreedyVerifier verifier;
  return verifier;
}

}  // namespace specdec
