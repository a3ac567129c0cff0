// What a request's constraint means for drafts.
#include <algorithm>
#include <string_view>

#include "decode/drafting.h"
#include "decode/stats.h"

namespace specdec {
namespace {

constexpr std::string_view kGrammar = "grammar";
constexpr int kMostForced = 15;  // tokens of a draft that is certain

}  // namespace

Draft Drafting::forced(std::span<const TokenId> generated, int max_tokens) {
  if (!off_reason_.empty() || max_tokens < 1 || records()) return {};
  double ms = 0.0;
  Draft draft;
  {
    const ScopedMs timer(ms);
    draft.proposal.tokens = constraint_->forced(generated);
    // The model writes this run in tokens of its own: what it is forced to may be refused again.
    forced_refused_ = forced_refused_ && !draft.proposal.empty();
    if (forced_refused_) draft.proposal = {};
    const auto most = static_cast<std::size_t>(std::min(max_tokens, kMostForced));
    if (draft.proposal.tokens.size() > most) draft.proposal.tokens.resize(most);
  }
  add_draft_ms(ms);
  if (draft.proposal.empty()) return draft;
  clear_pass();
  forced_ = true;
  record_.note(draft.proposal);
  draft.drafter = kGrammar;
  draft.reason = "the text is fixed";
  return draft;
}

void Drafting::cut_to_allowed(Draft& draft, std::span<const TokenId> committed) {
  DraftProposal& proposal = draft.proposal;
  // A length that depends on drawn tokens would bias the output.
  if (constraint_ == nullptr || proposal.empty() || !proposal.is_chain() ||
      !proposal.deterministic())
    return;
  const std::size_t n = constraint_->n_allowed(committed.subspan(n_prompt_), proposal.tokens);
  if (n == proposal.tokens.size()) return;
  n_cut_ = static_cast<int>(proposal.tokens.size() - n);
  proposal.tokens.resize(n);
  if (!proposal.parents.empty()) proposal.parents.resize(n);
  if (!proposal.probs.empty()) proposal.probs.resize(n);
  if (n > 0) return;
  draft.drafter = {};
  draft.reason = "the grammar allows nothing of the draft";
  proposal = {};
}

}  // namespace specdec
