#include "grammar/regex.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"

namespace specdec::grammar {
namespace {

using Ranges = std::vector<CodeRange>;

constexpr int kMaxCount = 10000;
constexpr int kMaxNesting = 200;

// Functions: what a program makes before main() has nobody to tell when there is no memory.
Ranges digits() { return {{'0', '9'}}; }
Ranges word() { return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}; }
// What JavaScript and Python both take for spaces.
Ranges spaces() {
  return {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
          {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}};
}
// What neither does.
Ranges no_spaces() {
  Ranges any = spaces();
  any.insert(any.end(), {{0x1C, 0x1F}, {0x85, 0x85}, {0xFEFF, 0xFEFF}});
  return complement(std::move(any));
}
Ranges newlines() { return {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}; }

class PatternReader {
 public:
  PatternReader(Syntax& syntax, std::string_view pattern, const std::string& what,
                const WriteCharacters& write)
      : syntax_(syntax), what_(what), write_(write) {
    std::optional<std::size_t> wrong;
    pattern_ = code_points(pattern, &wrong);
    if (wrong) throw_invalid(printable(what, 512) + ": half of a surrogate pair is no character");
  }

  Part run() {
    const Part part = alternatives(0);
    if (at_ < pattern_.size()) wrong("')' without '('");
    return part;
  }

 private:
  [[noreturn]] void wrong(const std::string& problem) const {
    throw_invalid(what_ + ": at character " + std::to_string(at_) + ": " + problem);
  }
  [[nodiscard]] bool ended() const { return at_ >= pattern_.size(); }
  [[nodiscard]] char32_t peek() const { return ended() ? U'\0' : pattern_[at_]; }
  bool skip(std::u32string_view text) {
    if (!std::u32string_view(pattern_).substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }

  Part anything() { return syntax_.repeat(write_(syntax_, {{0, 0x10FFFF}}), 0, kEndless); }

  Part alternatives(int depth) {
    if (depth > kMaxNesting) wrong("groups nest too deeply");
    std::vector<Part> choices;
    do choices.push_back(sequence(depth));
    while (skip(U"|"));
    return syntax_.choice(std::move(choices));
  }

  // At the outside, what `^` and `$` do not tie down may be anywhere.
  Part sequence(int depth) {
    std::vector<Part> parts;
    if (depth == 0 && !skip(U"^")) parts.push_back(anything());
    bool tied = false;
    while (!ended() && peek() != U'|' && peek() != U')') {
      if (depth == 0 && skip(U"$")) {
        if (!ended() && peek() != U'|') wrong("'$' before the end");
        tied = true;
        break;
      }
      parts.push_back(counted(depth));
    }
    if (depth == 0 && !tied) parts.push_back(anything());
    return syntax_.sequence(std::move(parts));
  }

  Part counted(int depth) {
    Part part = single(depth);
    while (!ended()) {
      int low = 0, high = kEndless;
      if (skip(U"*")) {
      } else if (skip(U"+")) {
        low = 1;
      } else if (skip(U"?")) {
        high = 1;
      } else if (!counts(low, high)) {
        break;
      }
      skip(U"?");  // which match is the shortest makes no difference to what matches
      if (peek() == U'+') wrong("possessive counts cannot be followed");
      part = syntax_.repeat(part, low, high);
    }
    return part;
  }

  bool counts(int& low, int& high) {
    const std::size_t before = at_;
    if (!skip(U"{")) return false;
    const auto number = [this](int& value) {
      const std::size_t first = at_;
      for (value = 0; peek() >= U'0' && peek() <= U'9'; ++at_) {
        value = 10 * value + static_cast<int>(peek() - U'0');
        if (value > kMaxCount) wrong("counts end at " + std::to_string(kMaxCount));
      }
      return at_ > first;
    };
    bool good = number(low);
    high = low;
    if (good && skip(U",") && !number(high)) high = kEndless;
    good = good && skip(U"}");
    if (!good) {
      at_ = before;
      wrong("'{' is no count; write \\{ for the sign");
    }
    if (high != kEndless && high < low) wrong("a count ends before it begins");
    return true;
  }

  Part single(int depth) {
    const char32_t c = peek();
    if (skip(U"(")) {
      if (skip(U"?") && !skip(U":")) {
        if (!skip(U"<") || peek() == U'=' || peek() == U'!')
          wrong("looking around cannot be followed");
        while (!ended() && !skip(U">")) ++at_;
      }
      const Part part = alternatives(depth + 1);
      if (!skip(U")")) wrong("'(' without ')'");
      return part;
    }
    if (c == U'[') return write_(syntax_, one_of());
    if (c == U'^' || c == U'$') wrong("'^' and '$' are followed at the outside only");
    if (c == U'*' || c == U'+' || c == U'?' || c == U'{') wrong("nothing to count");
    if (skip(U".")) return write_(syntax_, complement(newlines()));
    return write_(syntax_, character());
  }

  Ranges character() {
    const char32_t c = peek();
    if (c >= 0xD800 && c <= 0xDFFF) wrong("half a character");
    ++at_;
    return c == U'\\' ? escaped() : Ranges{{c, c}};
  }

  Ranges escaped() {
    if (ended()) wrong("'\\' at the end");
    const char32_t c = pattern_[at_++];
    switch (c) {
      case U'd':
        return digits();
      case U'D':
        return complement(digits());
      case U'w':
        return word();
      case U'W':
        return complement(word());
      case U's':
        return spaces();
      case U'S':
        return no_spaces();
      case U'n':
        return {{'\n', '\n'}};
      case U'r':
        return {{'\r', '\r'}};
      case U't':
        return {{'\t', '\t'}};
      case U'f':
        return {{'\f', '\f'}};
      case U'v':
        return {{'\v', '\v'}};
      case U'0':
        return {{0, 0}};
      case U'x':
        return hexadecimal(2);
      case U'u':
        return hexadecimal(4);
      default:
        break;
    }
    const bool letter =
        (c >= U'0' && c <= U'9') || (c >= U'A' && c <= U'Z') || (c >= U'a' && c <= U'z');
    if (letter) {
      --at_;
      wrong("this escape cannot be followed");
    }
    return {{c, c}};
  }

  Ranges hexadecimal(int n) {
    const std::optional<char32_t> found =
        hexadecimal_code(std::u32string_view(pattern_).substr(at_), static_cast<std::size_t>(n));
    if (!found) wrong("hexadecimal digits expected");
    at_ += static_cast<std::size_t>(n);
    return {{*found, *found}};
  }

  Ranges one_of() {
    ++at_;
    const bool others = skip(U"^");
    Ranges set;
    while (!skip(U"]")) {
      if (ended()) wrong("'[' without ']'");
      if (skip(U"[:")) wrong("named classes cannot be followed");
      Ranges first = character();
      const bool range = peek() == U'-' && at_ + 1 < pattern_.size() && pattern_[at_ + 1] != U']';
      if (range) {
        ++at_;
        const Ranges last = character();
        const bool single = first.size() == 1 && last.size() == 1 &&
                            first[0].first == first[0].second && last[0].first == last[0].second;
        if (!single || last[0].first < first[0].first) wrong("no range");
        first[0].second = last[0].first;
      }
      set.insert(set.end(), first.begin(), first.end());
    }
    return others ? complement(std::move(set)) : set;
  }

  Syntax& syntax_;
  std::u32string pattern_;
  const std::string& what_;
  const WriteCharacters& write_;
  std::size_t at_ = 0;
};

}  // namespace

Part pattern_part(Syntax& syntax, std::string_view pattern, const std::string& what,
                  const WriteCharacters& write) {
  return PatternReader(syntax, pattern, what, write).run();
}

}  // namespace specdec::grammar
