#include "grammar/json_text.h"

#include <algorithm>
#include <map>
#include <utility>

namespace specdec::grammar {
namespace {

constexpr int kMostIndent = 40;
constexpr CodeRange kPlain[] = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x10FFFF}};

}  // namespace

JsonText::JsonText(Syntax& syntax)
    : syntax_(syntax), space_(syntax.add_rule()), character_(syntax.add_rule()) {
  const Part indent = syntax.repeat(syntax.bytes(byte_set(" \t")), 0, kMostIndent);
  syntax.define(space_, syntax.choice({syntax.nothing(), syntax.text(" "),
                                       syntax.sequence({syntax.text("\n"), indent})}));
  const ByteSet hex = byte_set("0123456789abcdefABCDEF");
  // \ud800 to \udfff are halves of a character.
  const Part code = syntax.choice(
      {syntax.sequence({syntax.bytes(hex & ~byte_set("dD")), syntax.bytes(hex)}),
       syntax.sequence({syntax.bytes(byte_set("dD")), syntax.bytes(byte_range('0', '7'))})});
  const Part escape = syntax.choice(
      {syntax.bytes(byte_set("\"\\/bfnrt")),
       syntax.sequence({syntax.text("u"), code, syntax.bytes(hex), syntax.bytes(hex)})});
  syntax.define(character_, syntax.choice({syntax.characters(kPlain),
                                           syntax.sequence({syntax.text("\\"), escape})}));
}

Part JsonText::string(int min_length, int max_length) {
  return quoted_part(syntax_.repeat(character(), min_length, max_length));
}

Part JsonText::quoted_part(Part inside) {
  return syntax_.sequence({syntax_.text("\""), inside, syntax_.text("\"")});
}

Part JsonText::other_string(const std::vector<std::string>& names) {
  if (names.empty()) return string(0, kEndless);
  std::vector<std::u32string> codes;
  for (const std::string& name : names) codes.push_back(code_points(name));
  return syntax_.sequence({syntax_.text("\""), other_rest(codes, 0)});
}

// What may follow the first `at` characters, which all of the names have. Names are told apart by
// how they are written, so nothing is escaped until the text is none of them.
Part JsonText::other_rest(const std::vector<std::u32string>& names, std::size_t at) {
  std::map<char32_t, std::vector<std::u32string>> longer;
  bool is_name = false;
  for (const std::u32string& name : names) {
    if (name.size() == at) {
      is_name = true;
    } else {
      longer[name[at]].push_back(name);
    }
  }
  std::vector<CodeRange> taken = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
  std::vector<Part> choices;
  for (const auto& [code, with] : longer) {
    taken.emplace_back(code, code);
    // A name that has to be escaped cannot be met here at all.
    if (code < 0x20 || code == '"' || code == '\\') continue;
    const CodeRange one[] = {{code, code}};
    choices.push_back(syntax_.sequence({syntax_.characters(one), other_rest(with, at + 1)}));
  }
  choices.push_back(
      syntax_.sequence({syntax_.characters(complement(taken)),
                        syntax_.repeat(character(), 0, kEndless), syntax_.text("\"")}));
  if (!is_name) choices.push_back(syntax_.text("\""));
  return syntax_.choice(std::move(choices));
}

Part JsonText::literal(const Json& value) {
  std::vector<Part> parts;
  const auto add_all = [&](const auto& items, const auto& add, const char* open,
                           const char* close) {
    parts.push_back(syntax_.text(open));
    parts.push_back(space());
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i > 0) parts.push_back(comma());
      add(items[i]);
    }
    if (!items.empty()) parts.push_back(space());
    parts.push_back(syntax_.text(close));
  };
  if (const JsonList* list = value.list()) {
    add_all(*list, [&](const Json& item) { parts.push_back(literal(item)); }, "[", "]");
  } else if (const JsonMembers* members = value.members()) {
    const auto add = [&](const std::pair<std::string, Json>& member) {
      parts.insert(parts.end(), {syntax_.text(quoted(member.first)), space(), syntax_.text(":"),
                                 space(), literal(member.second)});
    };
    add_all(*members, add, "{", "}");
  } else {
    return syntax_.text(value.dump());
  }
  return syntax_.sequence(std::move(parts));
}

}  // namespace specdec::grammar
