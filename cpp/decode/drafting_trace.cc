// Drafters that are watched: all are asked in every pass, and none drafts.
#include "base/error.h"
#include "decode/drafting.h"
#include "decode/round_trace.h"
#include "decode/stats.h"

namespace specdec {

Draft Drafting::record(std::span<const TokenId> committed, Chance& chance) {
  trace_->begin_pass(static_cast<int>(committed.size()));
  for (Member& member : members_) {
    if (!member.active) continue;
    double ms = 0.0;
    try {
      if (member.model != nullptr) {
        std::vector<TreeNode> nodes;
        {
          const ScopedMs timer(ms);
          nodes = member.model->grow(committed, RoundTrace::kBounds, chance);
        }
        trace_->add_tree(member.drafter->name(), nodes, ms);
        continue;
      }
      DraftProposal proposal;
      {
        const ScopedMs timer(ms);
        proposal = member.drafter->propose(committed, adaptive_longest(member), chance);
      }
      trace_->add_lookup(member.drafter->name(), proposal, ms);
    } catch (const Error& error) {
      give_up(member, error);
    }
  }
  return {.proposal = {}, .drafter = {}, .reason = "recorded, not drafted"};
}

}  // namespace specdec
