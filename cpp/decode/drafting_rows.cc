// What drafters see of the target's rows: its best tokens, and its hidden states.
#include <algorithm>

#include "base/error.h"
#include "decode/drafting.h"

namespace specdec {

namespace {

constexpr int kMostReread = 64;  // rows of a prompt, for their taps

}  // namespace

std::span<const std::int32_t> Drafting::wanted_taps() const {
  for (const Member& member : members_) {
    if (member.active && !member.drafter->wanted_taps().empty())
      return member.drafter->wanted_taps();
  }
  return {};
}

int Drafting::n_kept(std::span<const TokenId> prompt, int n_cached) {
  int n_kept = n_cached;
  for (Member& member : members_) {
    if (!member.active || member.drafter->wanted_taps().empty()) continue;
    const int n_known = member.drafter->n_followed(prompt);
    if (n_cached - n_known <= kMostReread) n_kept = std::min(n_kept, n_known);
  }
  return n_kept;
}

// A part of reading the prompt, and of its time.
void Drafting::read(const ReadInfo& info) {
  for (Member& member : members_) {
    if (!member.active || member.drafter->wanted_taps().empty()) continue;
    try {
      member.drafter->read(info);
    } catch (const Error& error) {
      give_up(member, error);
    }
  }
}

void Drafting::drop_draft(double ms) {
  lost_ms_ = ms;
  if (choice_.drafter < 0) return;
  Member& member = members_[static_cast<std::size_t>(choice_.drafter)];
  if (member.model != nullptr) return;  // which is judged by what is accepted
  controller_->acceptance(choice_.drafter).observe(0, member.pending.grade, false);
  member.pending = {};
}

int Drafting::wanted_top_k() const {
  int top_k = 0;
  for (const Member& member : members_) {
    if (member.active) top_k = std::max(top_k, member.drafter->wanted_top_k());
  }
  return top_k;
}

bool Drafting::wants_all_rows() const {
  return std::any_of(members_.begin(), members_.end(),
                     [](const Member& s) { return s.active && s.drafter->wants_all_rows(); });
}

}  // namespace specdec
