#include "decode/draft_record.h"

#include <algorithm>

#include "base/error.h"

namespace specdec {

void DraftRecord::clear() {
  n_drafted_ = 0;
  cut_ = false;
  chain_.clear();
  grades_.clear();
  siblings_.clear();
}

void DraftRecord::set_bounds(int shortest, int longest) {
  shortest_ = shortest;
  longest_ = longest;
}

void DraftRecord::note(const DraftProposal& proposal, bool cut) {
  SPECDEC_CHECK(proposal.parents.empty() || proposal.parents.size() == proposal.tokens.size());
  n_drafted_ = proposal.size();
  cut_ = cut;
  chain_.clear();
  // Siblings stand one behind the other.
  for (int i = 0; i < n_drafted_; ++i) {
    if (i == 0 || proposal.parent(i) != proposal.parent(i - 1)) chain_.push_back(i);
  }
}

bool DraftRecord::wants_sibling(int n_drafted, int rank, double probability, double conditional) {
  const auto index = static_cast<std::int32_t>(n_drafted + n_siblings());
  if (index >= longest_ || !controller_->wants_sibling(n_drafted, rank, probability, conditional))
    return false;
  siblings_.push_back({.index = index,
                       .depth = n_drafted - 1,
                       .rank = rank,
                       .grade = AcceptanceModel::confidence_grade(conditional)});
  return true;
}

bool DraftRecord::keep_going(int n_drafted, double probability) {
  grades_.push_back(AcceptanceModel::confidence_grade(probability));
  const bool goes_on = controller_->keep_going(n_drafted, probability);
  return n_drafted + n_siblings() < longest_ && (goes_on || n_drafted < shortest_);
}

int DraftRecord::n_planned_siblings(int n_chain) {
  const int room = std::min(longest_, kMostTokens) - n_chain;
  return std::clamp(controller_->planned_siblings(n_chain), 0, std::max(room, 0));
}

void DraftRecord::note_sibling(int n_drafted, double conditional) {
  siblings_.push_back({.index = n_drafted + static_cast<std::int32_t>(siblings_.size()),
                       .depth = n_drafted - 1,
                       .rank = 1,
                       .grade = AcceptanceModel::confidence_grade(conditional)});
  controller_->note_sibling();
}

void DraftRecord::judge(int drafter, std::span<const std::int32_t> accepted) const {
  const auto is_last = [&](const Sibling& sibling) {
    return !accepted.empty() && sibling.index == accepted.back();
  };
  const bool by_sibling =
      !accepted.empty() && !std::binary_search(chain_.begin(), chain_.end(), accepted.back());
  const int n_right = static_cast<int>(accepted.size()) - (by_sibling ? 1 : 0);  // of the chain
  AcceptanceModel& acceptance = controller_->acceptance(drafter);
  const int n_judged = n_chain() + (cut_ ? 1 : 0);
  for (int i = 0; i < n_judged && i <= n_right; ++i) {
    const auto at = static_cast<std::size_t>(i);
    acceptance.observe(i, at < grades_.size() ? grades_[at] : AcceptanceModel::kGrades / 2,
                       i < n_right);
  }
  for (const Sibling& sibling : siblings_) {
    if (sibling.depth != n_right) continue;
    controller_->siblings(drafter).observe(sibling.rank - 1, sibling.grade, is_last(sibling));
    if (is_last(sibling)) return;
  }
}

}  // namespace specdec
