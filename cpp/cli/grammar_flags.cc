#include "cli/grammar_flags.h"

#include "cli/options.h"

namespace specdec::cli {

void add_grammar_flags(ArgParser& parser, GrammarFlags& flags) {
  parser.add(opt::kTextSchema, &flags.schema);
  parser.add(opt::kTextSchemaFile, &flags.schema_file);
  parser.add(opt::kTextGrammar, &flags.grammar);
  parser.add(opt::kTextGrammarFile, &flags.grammar_file);
}

std::optional<TextGrammar> read_grammar(const ArgParser& parser, const GrammarFlags& flags) {
  int n_given = 0;
  for (const OptionSpec* spec :
       {&opt::kTextSchema, &opt::kTextSchemaFile, &opt::kTextGrammar, &opt::kTextGrammarFile}) {
    if (parser.was_given(*spec)) ++n_given;
  }
  if (n_given == 0) return std::nullopt;
  if (n_given > 1) {
    throw UsageError("give one of --json-schema, --json-schema-file, --grammar and --grammar-file");
  }
  if (parser.was_given(opt::kTextSchema)) return TextGrammar::json_schema(flags.schema);
  if (parser.was_given(opt::kTextSchemaFile))
    return TextGrammar::json_schema(read_file(flags.schema_file));
  return TextGrammar::gbnf(parser.was_given(opt::kTextGrammar) ? flags.grammar
                                                               : read_file(flags.grammar_file));
}

}  // namespace specdec::cli
