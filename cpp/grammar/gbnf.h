// Grammars as llama.cpp writes them.
#pragma once

#include <string_view>

#include "grammar/automaton.h"

namespace specdec::grammar {

// Rules `name ::= ...` of texts in quotes, classes in brackets, `.`, groups, `|`, `*`, `+`, `?`,
// `{m,n}` and names, `#` begins a comment; the text is what `root` says. Throws
// Error(kInvalidArgument) with line and column.
[[nodiscard]] Automaton gbnf_automaton(std::string_view source);

}  // namespace specdec::grammar
