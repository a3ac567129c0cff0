// A vocabulary as a tree of bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/token.h"

namespace specdec::grammar {

// The nodes are in the order in which a walk meets them: each before those below it.
class TokenTrie {
 public:
  struct Node {
    std::uint32_t end;    // the first node behind all that are below this one
    std::uint32_t token;  // first in tokens()
    std::uint16_t n_tokens;
    std::uint16_t depth;  // 1: first byte
    unsigned char byte;
  };

  // Tokens of the vocabulary that are text; what has no bytes is none. `ends`: those that end it.
  TokenTrie(std::vector<std::string> texts, std::vector<TokenId> ends);

  [[nodiscard]] std::span<const Node> nodes() const noexcept { return nodes_; }
  [[nodiscard]] std::span<const TokenId> tokens() const noexcept { return tokens_; }
  [[nodiscard]] std::span<const TokenId> ends() const noexcept { return ends_; }
  [[nodiscard]] bool is_end(TokenId token) const noexcept;
  [[nodiscard]] std::string_view text(TokenId token) const noexcept;
  [[nodiscard]] int max_depth() const noexcept { return max_depth_; }
  // The longest token that begins a text, or -1.
  [[nodiscard]] TokenId longest(std::string_view text) const noexcept;

 private:
  std::vector<std::string> texts_;
  std::vector<TokenId> ends_;  // sorted
  std::vector<Node> nodes_;
  std::vector<TokenId> tokens_;
  int max_depth_ = 0;
};

}  // namespace specdec::grammar
