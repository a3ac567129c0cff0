// How long drafts are that a rule ends, token by token, guessed from the last ones.
#pragma once

#include <algorithm>

namespace specdec {

class DraftLength {
 public:
  // max_steps: tokens that can be had at once.
  void begin(int max_steps) { max_steps_ = max_steps; }

  // Of a chain whose results the rule sees before the target has begun. A step too many costs more
  // than a wait too many: a length that was not too long.
  [[nodiscard]] int watched() const { return watched_; }
  // Of one that the target takes unseen; 0: not known yet, above max_steps: better not.
  [[nodiscard]] int unseen() const { return unseen_; }

  // A watched draft of `length` tokens, of at most `limit`.
  void note(int length, int limit) {
    if (length >= limit) {
      unseen_ = std::max(unseen_, length);
    } else {
      unseen_ = unseen_ == 0 ? length : shorter(length);
    }
    unseen_ = std::min(unseen_, max_steps_ + 1);
    if (length > watched_) watched_ = std::min(watched_ + 1, max_steps_);
    if (length < std::min(watched_, limit)) watched_ = length;
  }
  // What the rule says behind the n_drafted-th token of an unseen chain of n_steps.
  void note_unseen(int n_drafted, int n_steps, bool goes_on) {
    if (!goes_on && n_drafted < n_steps) unseen_ = shorter(n_drafted);
    // A draft cut short costs more than a step too many.
    if (goes_on && n_drafted == n_steps) unseen_ = std::min(n_steps + 2, max_steps_ + 1);
    watched_ = std::min(unseen_, max_steps_);
  }

 private:
  // Half of the way.
  [[nodiscard]] int shorter(int length) const { return std::max(1, (unseen_ + length) / 2); }

  int max_steps_ = 1;
  int watched_ = 1;
  int unseen_ = 0;
};

}  // namespace specdec
