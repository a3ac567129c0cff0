// What a text may go on with, whatever the model thinks of it: a schema, a grammar.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/token.h"

namespace specdec {

// Belongs to one request. `generated` is the text behind the prompt, tokens of a draft included; it
// may be any such text at any call, and need not be allowed itself: then nothing depends on the
// answer.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  // Sets bit t % 32 of allowed[t / 32] where token t may follow, and clears the others.
  virtual void allow(std::span<const TokenId> generated, std::span<std::uint32_t> allowed) = 0;
  // How many tokens of `next`, one behind the other, may follow.
  [[nodiscard]] virtual std::size_t n_allowed(std::span<const TokenId> generated,
                                              std::span<const TokenId> next) = 0;
  // Tokens that nearly always follow, because the text is fixed; may be empty.
  [[nodiscard]] virtual std::vector<TokenId> forced(std::span<const TokenId> generated) = 0;
};

// A row in which what may not follow is -infinity. Throws Error(kInvalidArgument) when nothing may
// that `logit_bias` does not ban.
[[nodiscard]] std::vector<float> allowed_logits(
    std::span<const float> logits, TokenConstraint& constraint, std::span<const TokenId> generated,
    std::span<const std::pair<TokenId, float>> logit_bias);

}  // namespace specdec
