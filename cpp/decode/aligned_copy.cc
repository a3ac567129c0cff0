#include "decode/aligned_copy.h"

#include <algorithm>

namespace specdec {
namespace {

// Measured on whole files given back with edits (docs/drafters.md): a copy found again goes on as
// well as a match that is so much longer.
constexpr int kTrusted = 8;
constexpr std::size_t kFarthest = 24;  // tokens of a change, and of what it replaces
constexpr std::size_t kNear = 3;       // so many replaced, and one equal token is enough

}  // namespace

void AlignedCopy::begin(std::int32_t next, int match) {
  next_ = next;
  n_alike_ = match;
  found_again_ = false;
  changed_.clear();
}

int AlignedCopy::strength() const {
  if (idle() || !changed_.empty()) return 0;
  const bool fresh = found_again_ && n_alike_ < kTrusted + 2;
  return fresh ? n_alike_ + kTrusted : n_alike_;
}

void AlignedCopy::push(std::span<const TokenId> source, TokenId token) {
  if (idle()) return;
  if (changed_.empty()) {
    const auto at = static_cast<std::size_t>(next_);
    if (at < source.size() && source[at] == token) {
      ++next_;
      ++n_alike_;
      return;
    }
  }
  changed_.push_back(token);
  find_back(source);
  if (changed_.size() > kFarthest) forget();
}

// Of the places behind next_ that end with the last tokens of the change, the one with most of
// them; of equal ones that which replaces as many tokens as there are.
void AlignedCopy::find_back(std::span<const TokenId> source) {
  const auto left = static_cast<std::size_t>(next_);
  const std::size_t n = changed_.size();
  const auto distance = [n](std::size_t skipped) {
    return skipped + 1 > n ? skipped + 1 - n : n - skipped - 1;
  };
  std::size_t best = 0, most = 0;
  for (std::size_t skipped = 0; skipped < kFarthest && left + skipped < source.size(); ++skipped) {
    std::size_t equal = 0;
    while (equal < n && equal <= skipped &&
           source[left + skipped - equal] == changed_[n - 1 - equal]) {
      ++equal;
    }
    // One token alone says little: not that far away, nor that much was left out.
    if (equal == 0 || (equal == 1 && (skipped > kNear || (n == 1 && skipped > 1)))) continue;
    if (equal < most || (equal == most && distance(skipped) >= distance(best))) continue;
    best = skipped;
    most = equal;
  }
  if (most == 0) return;
  begin(next_ + static_cast<std::int32_t>(best) + 1, static_cast<int>(most));
  found_again_ = true;
}

}  // namespace specdec
