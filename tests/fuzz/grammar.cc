// Any text as a grammar, a schema or the pattern of a schema, and a text that follows it.
#include <algorithm>
#include <memory>
#include <vector>

#include "fuzz.h"
#include "grammar/constraint.h"
#include "grammar/gbnf.h"
#include "grammar/json.h"
#include "grammar/json_schema.h"
#include "grammar/token_trie.h"

using namespace specdec;

namespace {

std::shared_ptr<const grammar::TokenTrie> vocabulary() {
  static const auto trie = [] {
    std::vector<std::string> texts;
    for (int byte = 0; byte < 256; ++byte) texts.emplace_back(1, static_cast<char>(byte));
    for (const char* text : {"{\"", "\":", "true", "null", "\", \"", "1234", "}", ""})
      texts.emplace_back(text);
    return std::make_shared<const grammar::TokenTrie>(std::move(texts), std::vector<TokenId>{263});
  }();
  return trie;
}

// Goes on with the allowed token that a byte of the input chooses; each step says the same in each
// of the ways to ask.
void follow(grammar::Automaton automaton, fuzz::Input choices) {
  const auto trie = vocabulary();
  grammar::GrammarConstraint constraint(
      std::make_shared<const grammar::Automaton>(std::move(automaton)), trie);
  std::vector<TokenId> text;
  std::vector<std::uint32_t> allowed(9);
  for (int step = 0; step < 24; ++step) {
    constraint.allow(text, allowed);
    std::vector<TokenId> may;
    for (TokenId token = 0; token < 264; ++token) {
      if ((allowed[static_cast<std::size_t>(token) / 32] >> (token % 32)) & 1) may.push_back(token);
    }
    const std::vector<TokenId> forced = constraint.forced(text);
    if (!forced.empty() && constraint.n_allowed(text, forced) != forced.size())
      fuzz::found("what is forced is not allowed");
    if (may.empty()) return;
    const TokenId next = may[choices.byte() % may.size()];
    const TokenId one[] = {next};
    if (constraint.n_allowed(text, one) != 1) fuzz::found("two answers about one token");
    if (trie->is_end(next)) return;
    text.push_back(next);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const std::uint8_t kind = input.byte();
  const std::string_view text = input.rest();
  // The choices come from the other end.
  std::string turned(text.substr(text.size() - std::min<std::size_t>(text.size(), 24)));
  const fuzz::Input choices(reinterpret_cast<const std::uint8_t*>(turned.data()), turned.size());
  fuzz::runs([&] {
    switch (kind % 3) {
      case 0:
        follow(grammar::gbnf_automaton(text), choices);
        break;
      case 1:
        follow(grammar::json_schema_automaton(text), choices);
        break;
      default:
        follow(grammar::json_schema_automaton(R"({"type":"string","pattern":)" +
                                              grammar::quoted(text) + "}"),
               choices);
    }
  });
  return 0;
}
