// Follows a text that copies another one with changes. Where it departs from its source, the place
// behind the change at which both go on alike is looked for, so that the copy is followed again
// after a token or two: a longest match begins from nothing there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/token.h"

namespace specdec {

class AlignedCopy {
 public:
  static constexpr int kLeastMatch = 4;  // from which a source is taken up

  // `next`: where the copy goes on in its source, behind a match of so many tokens.
  void begin(std::int32_t next, int match);
  void forget() { *this = {}; }
  [[nodiscard]] bool idle() const { return next_ < 0; }

  // The token that came next. `source`: as it is before that token, if it is part of it.
  void push(std::span<const TokenId> source, TokenId token);

  // What is drafted from next() on is as likely as behind a match of so many tokens; 0: nothing is,
  // the copy is beside its source.
  [[nodiscard]] int strength() const;
  [[nodiscard]] std::int32_t next() const { return next_; }

 private:
  void find_back(std::span<const TokenId> source);

  std::int32_t next_ = -1;        // in the source; while it is left: where it was left
  int n_alike_ = 0;               // tokens since the source was taken up, or found again
  bool found_again_ = false;      // behind a change
  std::vector<TokenId> changed_;  // since it was left; empty: it is followed
};

}  // namespace specdec
