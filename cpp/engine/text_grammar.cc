#include "engine/text_grammar.h"

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "grammar/constraint.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "tokenizer/tokenizer.h"

namespace specdec {

TextGrammar::TextGrammar(grammar::Automaton automaton)
    : automaton_(std::make_shared<const grammar::Automaton>(std::move(automaton))) {}

TextGrammar TextGrammar::json_schema(std::string_view schema) {
  return TextGrammar(grammar::json_schema_automaton(schema));
}

TextGrammar TextGrammar::gbnf(std::string_view source) {
  return TextGrammar(grammar::gbnf_automaton(source));
}

std::shared_ptr<TokenConstraint> TextGrammar::constraint(const LoadedModel& model) const {
  const Tokenizer& tokenizer = model.tokenizer();
  if (tokenizer.eog_ids().empty()) {
    throw Error(ErrorCode::kUnsupported,
                "this model has no token that ends a text: no grammar can end");
  }
  std::vector<std::string> texts;
  for (TokenId token = 0; token < tokenizer.n_tokens(); ++token) {
    texts.emplace_back();
    // A grammar cannot ask for a control token by its spelling.
    if (!tokenizer.is_hidden(token)) texts.back() = tokenizer.token_bytes(token);
  }
  auto vocabulary =
      std::make_shared<const grammar::TokenTrie>(std::move(texts), tokenizer.eog_ids());
  return std::make_shared<grammar::GrammarConstraint>(automaton_, std::move(vocabulary));
}

}  // namespace specdec
