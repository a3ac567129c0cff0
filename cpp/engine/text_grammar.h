// A grammar for the texts of a model, without anything outside the engine.
#pragma once

#include <memory>
#include <string_view>

#include "engine/loaded_model.h"
#include "grammar/automaton.h"
#include "sampling/constraint.h"

namespace specdec {

// Throws Error(kInvalidArgument) for what is no schema or grammar, or cannot be followed.
class TextGrammar {
 public:
  [[nodiscard]] static TextGrammar json_schema(std::string_view schema);
  [[nodiscard]] static TextGrammar gbnf(std::string_view source);

  // For one request; several may be made. Throws Error(kUnsupported) when the model has no token
  // that ends a text.
  [[nodiscard]] std::shared_ptr<TokenConstraint> constraint(const LoadedModel& model) const;

 private:
  explicit TextGrammar(grammar::Automaton automaton);
  std::shared_ptr<const grammar::Automaton> automaton_;
};

}  // namespace specdec
