#include "sampling/constraint.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace specdec {

std::vector<float> allowed_logits(std::span<const float> logits, TokenConstraint& constraint,
                                  std::span<const TokenId> generated,
                                  std::span<const std::pair<TokenId, float>> logit_bias) {
  std::vector<std::uint32_t> allowed((logits.size() + 31) / 32);
  constraint.allow(generated, allowed);
  bool banned = false;
  for (const auto& [token, bias] : logit_bias) {
    if (bias != -std::numeric_limits<float>::infinity()) continue;
    std::uint32_t& word = allowed[static_cast<std::size_t>(token) / 32];
    const std::uint32_t bit = std::uint32_t{1} << (static_cast<std::size_t>(token) % 32);
    banned |= (word & bit) != 0;
    word &= ~bit;
  }
  std::vector<float> row(logits.size(), -std::numeric_limits<float>::infinity());
  bool any = false;
  for (std::size_t word = 0; word < allowed.size(); ++word) {
    if (allowed[word] == 0) continue;
    const std::size_t end = std::min(logits.size(), 32 * (word + 1));
    for (std::size_t i = 32 * word; i < end; ++i) {
      if ((allowed[word] >> (i % 32) & 1U) == 0) continue;
      row[i] = logits[i];
      any = true;
    }
  }
  if (!any) {
    throw_invalid(banned ? "all tokens that the grammar allows here are banned, by ignore_eos or "
                           "logit_bias"
                         : "the grammar allows no token here, not even one that ends the text");
  }
  return row;
}

}  // namespace specdec
