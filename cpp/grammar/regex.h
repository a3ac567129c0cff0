// Regular expressions as parts of a grammar.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/syntax.h"

namespace specdec::grammar {

// How one character of a set is written: escaped or not.
using WriteCharacters = std::function<Part(Syntax&, const std::vector<CodeRange>&)>;

// What JSON schemas mean by a pattern: a text in which it is found somewhere, unless `^` and `$`
// say where. Classes, groups, alternatives and counts; no looking around, references or boundaries.
// Throws Error(kInvalidArgument); `what` names the pattern in the message.
[[nodiscard]] Part pattern_part(Syntax& syntax, std::string_view pattern, const std::string& what,
                                const WriteCharacters& write);

}  // namespace specdec::grammar
