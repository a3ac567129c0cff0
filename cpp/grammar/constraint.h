// Text of a grammar, token by token.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/token_trie.h"
#include "grammar/walker.h"
#include "sampling/constraint.h"

namespace specdec::grammar {

// Of one request. A text that could go on or end may do either.
class GrammarConstraint final : public TokenConstraint {
 public:
  GrammarConstraint(std::shared_ptr<const Automaton> automaton,
                    std::shared_ptr<const TokenTrie> vocabulary);

  void allow(std::span<const TokenId> generated, std::span<std::uint32_t> allowed) override;
  [[nodiscard]] std::size_t n_allowed(std::span<const TokenId> generated,
                                      std::span<const TokenId> next) override;
  [[nodiscard]] std::vector<TokenId> forced(std::span<const TokenId> generated) override;

 private:
  using Mask = std::vector<std::uint32_t>;

  // Whether the text is allowed; the places behind its tokens are in `places_` then.
  bool go_to(std::span<const TokenId> text);
  // Behind a token; kNowhere if it may not follow.
  Walker::Place after(Walker::Place place, TokenId token);
  void fill(Walker::Place place, std::span<std::uint32_t> allowed);

  std::shared_ptr<const TokenTrie> vocabulary_;
  Walker walker_;
  std::vector<TokenId> text_;
  std::vector<Walker::Place> places_;  // [text_ + 1]
  std::unordered_map<Walker::Place, Mask> masks_;
};

}  // namespace specdec::grammar
