// Decides which drafted tokens stand, and the token after them.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "sampling/chance.h"
#include "sampling/params.h"
#include "sampling/proposal.h"

namespace specdec {

// The target's distributions for one round, each computed when first asked for.
class TargetRows {
 public:
  virtual ~TargetRows() = default;
  // Distribution of the token that follows proposal token `row`; -1: that follows the last
  // committed token.
  [[nodiscard]] virtual const Distribution& at(int row) = 0;
};

struct VerifierTraits {
  bool lossless = false;  // emitted tokens follow the target's distribution whatever the proposal
  bool trees = false;     // takes trees as well as chains
  bool greedy_only = false;        // only for temperature 0
  bool reads_draft_probs = false;  // a sampled draft must carry its distribution
  bool position_noise =
      false;  // chooses with noise fixed per position: drafts may be coupled to it
  bool reads_top_k =
      false;  // wants distributions on the draft's top K, of deterministic drafts too
};

// Stateless and pure: the verdict is a function of the proposal, the rows and `chance`.
class Verifier {
 public:
  virtual ~Verifier() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  [[nodiscard]] virtual VerifierTraits traits() const = 0;
  // An empty proposal is plain decoding: one token from row -1. Throws Error(kInternal) for a
  // proposal that is not what its type says: nothing exact can be made of that.
  [[nodiscard]] Verdict verify(const DraftProposal& proposal, TargetRows& rows,
                               Chance& chance) const;

 private:
  // The proposal is one that check_proposal() lets pass.
  [[nodiscard]] virtual Verdict decide(const DraftProposal& proposal, TargetRows& rows,
                                       Chance& chance) const = 0;
};

// Throws Error(kInternal) naming the token unless the proposal is a chain or, for those who take
// them, a tree; and, for those who read draft distributions, every drawn token carries the
// distribution that it can have been drawn from.
void check_proposal(const DraftProposal& proposal, const VerifierTraits& traits);

// Every verifier of verifiers/verifiers.def.
[[nodiscard]] std::span<const Verifier* const> all_verifiers();
// By name, or "auto": greedy at temperature 0, match above. Throws Error(kInvalidArgument) for an
// unknown name and for a combination that would not be exact.
[[nodiscard]] const Verifier& resolve_verifier(std::string_view name, const SamplingParams& params);

// Children of `row` in the proposal's order.
[[nodiscard]] std::vector<std::int32_t> children_of(const DraftProposal& proposal, int row);
// Child of `row` that carries `token`, or -1.
[[nodiscard]] int find_child(const DraftProposal& proposal, int row, TokenId token);

}  // namespace specdec
