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
