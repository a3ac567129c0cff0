// How long drafts may be, before anybody asks what is in them.
#include <algorithm>

#include "decode/drafting.h"

namespace specdec {

// Of a drafter without the controller.
int Drafting::longest_of(const Member& member) {
  const DraftLengths& lengths = member.lengths;
  return lengths.gamma.value_or(lengths.draft_max.value_or(member.drafter->default_draft_max()));
}

// A model goes on as long as it seems worth it.
int Drafting::adaptive_longest(const Member& member) {
  if (member.lengths.draft_max) return longest_of(member);
  return member.model != nullptr ? DraftRecord::kMostTokens : member.drafter->weighed_draft_max();
}

int Drafting::room_of(const Member& member, int n_free_slots) const {
  const int branch = member.branch();
  const bool is_tree = branch > 1 || (member.model != nullptr ? siblings_ : trees_);
  const int most_rows = is_tree ? most_tree_rows_ : kMaxBatchRows;
  // Rows of siblings need room in the cache until they are dropped.
  return std::min(n_free_slots, most_rows - 1) / branch;
}

int Drafting::limit_of(const Member& member, int max_tokens, int n_free_slots) const {
  const int limit = std::min({longest_of(member), max_tokens, room_of(member, n_free_slots)});
  return limit < member.lengths.draft_min ? 0 : limit;
}

}  // namespace specdec
