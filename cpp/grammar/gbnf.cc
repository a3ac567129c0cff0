#include "grammar/gbnf.h"

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace specdec::grammar {
namespace {

constexpr std::size_t kMaxSource = std::size_t{1} << 20;  // bytes
constexpr int kMaxCount = 1 << 16;
constexpr int kMaxNesting = 200;

bool is_name(char32_t c) {
  return (c >= U'a' && c <= U'z') || (c >= U'A' && c <= U'Z') || (c >= U'0' && c <= U'9') ||
         c == U'-' || c == U'_';
}

class GbnfReader {
 public:
  explicit GbnfReader(std::string_view source) : source_(code_points(source)) {}

  Automaton run() {
    spaces(true);
    while (!ended()) rule();
    for (const auto& [name, known] : rules_)
      if (!known.defined) throw_invalid("gbnf: rule '" + name + "' is used but not defined");
    const auto root = rules_.find("root");
    if (root == rules_.end()) throw_invalid("gbnf: there is no rule 'root', where a text begins");
    return make_automaton(syntax_, root->second.rule);
  }

 private:
  struct Known {
    Rule rule = 0;
    bool defined = false;
  };

  [[noreturn]] void wrong(const std::string& problem) const {
    std::size_t line = 1, column = 1;
    for (std::size_t i = 0; i < at_ && i < source_.size(); ++i) {
      ++column;
      if (source_[i] == U'\n') ++line, column = 1;
    }
    throw_invalid("gbnf, line " + std::to_string(line) + ", column " + std::to_string(column) +
                  ": " + problem);
  }
  [[nodiscard]] bool ended() const { return at_ >= source_.size(); }
  [[nodiscard]] char32_t peek() const { return ended() ? U'\0' : source_[at_]; }
  bool skip(std::u32string_view text) {
    if (!std::u32string_view(source_).substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  // Comments too; over the end of the line only where a rule cannot end.
  void spaces(bool lines) {
    while (!ended()) {
      const char32_t c = peek();
      if (c == U'#') {
        while (!ended() && peek() != U'\n') ++at_;
      } else if (c == U' ' || c == U'\t' || c == U'\r' || (lines && c == U'\n')) {
        ++at_;
      } else {
        break;
      }
    }
  }

  std::string name() {
    std::string out;
    for (; !ended() && is_name(peek()); ++at_) out.push_back(static_cast<char>(peek()));
    return out;
  }
  Known& known(const std::string& name) {
    const auto [entry, is_new] = rules_.try_emplace(name);
    if (is_new) entry->second.rule = syntax_.add_rule();
    return entry->second;
  }

  void rule() {
    const std::string called = name();
    if (called.empty()) wrong("a rule's name expected");
    spaces(false);
    if (!skip(U"::=")) wrong("'::=' expected behind '" + called + "'");
    spaces(true);
    const Part part = alternatives(0);
    Known& rule = known(called);
    if (rule.defined) wrong("rule '" + called + "' is defined twice");
    rule.defined = true;
    syntax_.define(rule.rule, part);
    if (!ended() && peek() != U'\n') wrong("the end of the line expected");
    spaces(true);
  }

  Part alternatives(int depth) {
    if (depth > kMaxNesting) wrong("groups nest too deeply");
    std::vector<Part> choices = {sequence(depth)};
    while (skip(U"|")) {
      spaces(true);
      choices.push_back(sequence(depth));
    }
    return syntax_.choice(std::move(choices));
  }

  Part sequence(int depth) {
    std::vector<Part> parts;
    while (!ended() && peek() != U'|' && peek() != U')' && peek() != U'\n') {
      parts.push_back(counted(depth));
      spaces(depth > 0);
    }
    return syntax_.sequence(std::move(parts));
  }

  Part counted(int depth) {
    Part part = single(depth);
    while (!ended()) {
      if (skip(U"*")) {
        part = syntax_.repeat(part, 0, kEndless);
      } else if (skip(U"+")) {
        part = syntax_.repeat(part, 1, kEndless);
      } else if (skip(U"?")) {
        part = syntax_.optional(part);
      } else if (skip(U"{")) {
        part = counts(part);
      } else {
        break;
      }
    }
    return part;
  }

  Part counts(Part part) {
    const int low = number();
    int high = low;
    spaces(false);
    if (skip(U",")) {
      spaces(false);
      high = peek() == U'}' ? kEndless : number();
    }
    spaces(false);
    if (!skip(U"}")) wrong("'}' expected");
    if (high != kEndless && high < low) wrong("a count ends before it begins");
    return syntax_.repeat(part, low, high);
  }

  int number() {
    if (peek() < U'0' || peek() > U'9') wrong("a number expected");
    int value = 0;
    for (; peek() >= U'0' && peek() <= U'9'; ++at_) {
      value = 10 * value + static_cast<int>(peek() - U'0');
      if (value > kMaxCount) wrong("counts end at " + std::to_string(kMaxCount));
    }
    return value;
  }

  Part single(int depth) {
    if (skip(U"(")) {
      spaces(true);
      const Part part = alternatives(depth + 1);
      if (!skip(U")")) wrong("')' expected");
      return part;
    }
    if (skip(U"\"")) return quoted_text();
    if (skip(U"[")) return one_of();
    if (skip(U".")) return any_of({{0, 0x10FFFF}});
    const std::string called = name();
    if (called.empty()) wrong("a text, a class, a group or a name expected");
    return syntax_.call(known(called).rule);
  }

  Part any_of(const std::vector<CodeRange>& set) { return syntax_.characters(set); }

  Part quoted_text() {
    std::string text;
    while (!skip(U"\"")) {
      if (ended() || peek() == U'\n') wrong("'\"' expected");
      append_utf8(text, character());
    }
    return syntax_.text(text);
  }

  Part one_of() {
    const bool others = skip(U"^");
    std::vector<CodeRange> set;
    while (!skip(U"]")) {
      if (ended() || peek() == U'\n') wrong("']' expected");
      const char32_t first = character();
      char32_t last = first;
      if (peek() == U'-' && at_ + 1 < source_.size() && source_[at_ + 1] != U']') {
        ++at_;
        last = character();
      }
      if (last < first) wrong("a range ends before it begins");
      set.emplace_back(first, last);
    }
    return any_of(others ? complement(std::move(set)) : set);
  }

  char32_t character() {
    if (ended()) wrong("a character expected");
    const char32_t c = source_[at_++];
    if (c != U'\\') return c;
    const char32_t escape = ended() ? U'\0' : source_[at_++];
    switch (escape) {
      case U'n':
        return U'\n';
      case U'r':
        return U'\r';
      case U't':
        return U'\t';
      case U'x':
        return hexadecimal(2);
      case U'u':
        return hexadecimal(4);
      case U'U':
        return hexadecimal(8);
      case U'"':
      case U'\\':
      case U'[':
      case U']':
      case U'-':
      case U'^':
        return escape;
      default:
        break;
    }
    --at_;
    wrong("this escape is none of \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\^ \\x \\u \\U");
  }

  char32_t hexadecimal(int n) {
    const std::optional<char32_t> found =
        hexadecimal_code(std::u32string_view(source_).substr(at_), static_cast<std::size_t>(n));
    if (!found) wrong("hexadecimal digits expected");
    at_ += static_cast<std::size_t>(n);
    const char32_t code = *found;
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) wrong("no character has this code");
    return code;
  }

  std::u32string source_;
  std::size_t at_ = 0;
  Syntax syntax_;
  std::map<std::string, Known> rules_;
};

}  // namespace

Automaton gbnf_automaton(std::string_view source) {
  if (source.size() > kMaxSource) {
    throw_invalid("gbnf has " + std::to_string(source.size()) + " bytes, expected up to " +
                  std::to_string(kMaxSource));
  }
  require_utf8(source, "gbnf");
  return GbnfReader(source).run();
}

}  // namespace specdec::grammar
