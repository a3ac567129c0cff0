// The scanners behind split_words().
#pragma once

#include <cstdint>
#include <vector>

#include "tokenizer/pre_tokenizer.h"

namespace specdec {

// Sets `cuts` to the end of every word, in characters.
void split_chars(SplitRule rule, const CharText& text, std::vector<std::uint32_t>& cuts);

}  // namespace specdec
