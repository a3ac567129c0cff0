// Which tokens a draft model's head computes: a distribution over fewer tokens is one all the same.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/token.h"
#include "decode/drafter.h"
#include "decode/token_scorer.h"

namespace specdec {

class DraftHead {
 public:
  // Of n_tokens ids the first `kept` (0: all; default: as DraftModelOptions says).
  void begin(int n_tokens, std::optional<int> kept) {
    constexpr int kDefault = DraftModelOptions::kDefaultHeadTokens;
    const int n = kept.value_or(n_tokens >= 2 * kDefault ? kDefault : 0);
    blocks_.clear();
    if (n <= 0 || n >= n_tokens) return;
    for (int block = 0; block * kHeadBlock < n; ++block) blocks_.push_back(block);
  }
  // These too; vocab_size: of the model.
  void add(std::span<const TokenId> tokens, int vocab_size) {
    if (blocks_.empty()) return;
    for (const TokenId token : tokens) {
      const std::int32_t block = token / kHeadBlock;
      if (token >= vocab_size) continue;
      const auto at = std::lower_bound(blocks_.begin(), blocks_.end(), block);
      if (at == blocks_.end() || *at != block) blocks_.insert(at, block);
    }
  }
  // As Batch::head_blocks.
  [[nodiscard]] std::span<const std::int32_t> blocks() const { return blocks_; }

 private:
  std::vector<std::int32_t> blocks_;
};

}  // namespace specdec
