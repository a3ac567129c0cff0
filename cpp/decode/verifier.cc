#include "decode/verifier.h"

#include <array>
#include <string>

#include "base/error.h"

namespace specdec {

#define SPECDEC_VERIFIER(name) const Verifier& name##_verifier();
#include "decode/verifiers/verifiers.def"
#undef SPECDEC_VERIFIER

std::span<const Verifier* const> all_verifiers() {
#define SPECDEC_VERIFIER(name) &name##_verifier(),
  static const std::array kVerifiers = {
#include "decode/verifiers/verifiers.def"
  };
#undef SPECDEC_VERIFIER
  return kVerifiers;
}

const Verifier& resolve_verifier(std::string_view name, const SamplingParams& params) {
  if (name == "auto") name = params.greedy() ? "greedy" : "match";
  std::string known = "auto";
  for (const Verifier* verifier : all_verifiers()) {
    if (verifier->name() == name) {
      if (verifier->traits().greedy_only && !params.greedy()) {
        throw_invalid("verifier '" + std::string(name) + "' needs temperature 0, got " +
                      std::to_string(params.temperature) + "; use 'auto'");
      }
      return *verifier;
    }
    known += ", " + std::string(verifier->name());
  }
  throw_invalid("verifier must be one of " + known + "; got '" + printable(name) + "'");
}

namespace {

[[noreturn]] void bad_token(std::size_t i, const char* what) {
  throw Error(ErrorCode::kInternal, "internal error: token " + std::to_string(i) + " of a draft " +
                                        what + "; please report it");
}

// Siblings were drawn from the first one's distribution, one after the other and without
// repetition.
void check_drawn(const DraftProposal& proposal) {
  const std::size_t n = proposal.tokens.size();
  std::vector<std::int32_t> last_child(n + 1, -1);  // so far, of the token before
  std::vector<std::int32_t> sibling(n, -1);         // the one before
  for (std::size_t i = 0; i < n; ++i) {
    std::int32_t& last =
        last_child[static_cast<std::size_t>(proposal.parent(static_cast<int>(i)) + 1)];
    sibling[i] = last;
    last = static_cast<std::int32_t>(i);
    std::size_t first = i;
    while (sibling[first] >= 0) {
      first = static_cast<std::size_t>(sibling[first]);
      if (proposal.tokens[first] == proposal.tokens[i]) bad_token(i, "was drawn twice");
    }
    if (first != i && proposal.probs[i].size() > 0)
      bad_token(i, "has a distribution beside its sibling's");
    if (!(proposal.probs[first].prob(proposal.tokens[i]) > 0.0))
      bad_token(i, "does not carry the distribution it was drawn from");
  }
}

}  // namespace

void check_proposal(const DraftProposal& proposal, const VerifierTraits& traits) {
  const std::size_t n = proposal.tokens.size();
  if (!proposal.parents.empty() && proposal.parents.size() != n)
    bad_token(n, "is missing, or its parent is");
  for (std::size_t i = 0; i < n; ++i) {
    const std::int32_t parent = proposal.parent(static_cast<int>(i));
    if (parent < -1 || parent >= static_cast<std::int32_t>(i)) bad_token(i, "follows a later one");
    if (!traits.trees && parent != static_cast<std::int32_t>(i) - 1)
      bad_token(i, "branches off, and the verifier takes chains only");
  }
  if (!traits.reads_draft_probs || proposal.probs.empty()) return;
  if (proposal.probs.size() != n) bad_token(n, "is missing, or its distribution is");
  if (!proposal.deterministic()) check_drawn(proposal);
}

Verdict Verifier::verify(const DraftProposal& proposal, TargetRows& rows, Chance& chance) const {
  check_proposal(proposal, traits());
  return decide(proposal, rows, chance);
}

std::vector<std::int32_t> children_of(const DraftProposal& proposal, int row) {
  std::vector<std::int32_t> children;
  for (int i = row + 1; i < proposal.size(); ++i) {
    if (proposal.parent(i) == row) children.push_back(i);
  }
  return children;
}

int find_child(const DraftProposal& proposal, int row, TokenId token) {
  for (int i = row + 1; i < proposal.size(); ++i) {
    if (proposal.parent(i) == row && proposal.tokens[static_cast<std::size_t>(i)] == token)
      return i;
  }
  return -1;
}

}  // namespace specdec
