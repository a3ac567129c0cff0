// What the command line says about the form of a text.
#pragma once

#include <optional>
#include <string>

#include "cli/args.h"
#include "engine/text_grammar.h"

namespace specdec::cli {

struct GrammarFlags {
  std::string schema, schema_file;
  std::string grammar, grammar_file;  // GBNF
};

void add_grammar_flags(ArgParser& parser, GrammarFlags& flags);

// Of the flag that was given; UsageError if several were.
[[nodiscard]] std::optional<TextGrammar> read_grammar(const ArgParser& parser,
                                                      const GrammarFlags& flags);

}  // namespace specdec::cli
