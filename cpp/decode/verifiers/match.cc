// The target's own token at every step, chosen with noise that is fixed per absolute position; a
// drafted child that carries it only spares a pass. Every emitted token is the target's, so the
// output is exact for any candidates, and for one seed the same for all drafters and lengths.
#include "decode/verifier.h"

namespace specdec {
namespace {

class MatchVerifier final : public Verifier {
 public:
  std::string_view name() const override { return "match"; }
  VerifierTraits traits() const override {
    return {.lossless = true, .trees = true, .position_noise = true};
  }

 private:
  Verdict decide(const DraftProposal& proposal, TargetRows& rows, Chance& chance) const override {
    Verdict verdict;
    while (true) {
      const int depth = static_cast<int>(verdict.accepted.size());
      verdict.next_token = chance.draw_at(rows.at(verdict.next_row), depth);
      const int child = find_child(proposal, verdict.next_row, verdict.next_token);
      if (child < 0) return verdict;
      verdict.accepted.push_back(child);
      verdict.next_row = child;
    }
  }
};

}  // namespace

const Verifier& match_verifier() {
  static const MatchVerifier verifier;
  return verifier;
}

}  // namespace specdec
