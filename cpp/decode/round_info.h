// What happened in one target pass, for those who watch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/token.h"

namespace specdec {

// Told as soon as the pass is verified and before any stop is applied. Views end with the call.
struct RoundInfo {
  std::int64_t index = 0;
  std::span<const TokenId> drafted;
  std::span<const std::int32_t> parents;   // [drafted.size()] -1: the root; empty: a chain
  std::span<const std::int32_t> accepted;  // indices into `drafted`
  TokenId next_token = -1;                 // the target's own
  std::string_view drafter;                // its name; empty when nothing was drafted
  std::string_view reason;                 // why a draft of this length, or none

  // "plain": nothing was drafted; "bonus": the target's token follows a draft that was right to its
  // end; "correction": it stands in for a drafted one.
  [[nodiscard]] std::string_view outcome() const {
    if (drafted.empty()) return "plain";
    if (accepted.empty()) return "correction";
    const std::int32_t last = accepted.back();
    const bool is_leaf = parents.empty()
                             ? static_cast<std::size_t>(last) + 1 == drafted.size()
                             : std::find(parents.begin(), parents.end(), last) == parents.end();
    return is_leaf ? "bonus" : "correction";
  }
};

}  // namespace specdec
