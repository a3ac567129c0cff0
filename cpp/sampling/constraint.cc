#include "sampling/constraint.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace specdec {

std::vector<float> allowed_logits(std::span<const float> logits, TokenConstraint& constraint,
                                  std::span<const TokenId> generated) {
  std::vector<std::uint32_t> allowed((logits.size() + 31) / 32);
  constraint.allow(generated, allowed);
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
  if (!any) throw_invalid("the grammar allows no token here, not even one that ends the text");
  return row;
}

}  // namespace specdec
