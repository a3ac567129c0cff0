#include "chat_template/lexer.h"

#include <algorithm>
#include <cstring>

#include "chat_template/unicode.h"

namespace specdec::chat {
namespace {

constexpr std::string_view kLongOperators[] = {"//", "**", "==", "!=", ">=", "<="};
constexpr std::string_view kShortOperators = "+-/*%~[](){}<>=.:|,;";

// One kind of newline, and none at the very end.
Text normalized(TextView source) {
  Text out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out.push_back('\n');
    } else {
      out.push_back(source[i]);
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool is_digit(Unit c) { return c >= '0' && c <= '9'; }
bool is_name_part(Unit c) { return c == '_' || has_property(c, kNamePart | kAlphanumeric); }

class Lexer {
 public:
  Lexer(Budget& budget, std::string_view source)
      : budget_(budget), source_(normalized(decode_text(source))) {
    budget_.work(16 * source_.size());
  }

  std::vector<Token> run() {
    while (at_ < source_.size()) outside();
    add(TokenKind::kEnd);
    return std::move(tokens_);
  }

 private:
  enum class Begin { kBlock, kVariable, kComment };

  [[nodiscard]] Unit peek(std::size_t offset = 0) const {
    return at_ + offset < source_.size() ? source_[at_ + offset] : 0;
  }
  [[nodiscard]] bool looking_at(std::string_view ascii, std::size_t at) const {
    return equals_ascii(TextView(source_).substr(std::min(at, source_.size()), ascii.size()),
                        ascii);
  }
  [[nodiscard]] bool space_at(std::size_t at) const {
    return at < source_.size() && is_space(source_[at]);
  }

  void add(TokenKind kind, std::string word = {}, Text text = {}) {
    budget_.work(kAllocationWork);
    if (tokens_.size() >= kMaxTokens) {
      throw TemplateError(Problem::kLimit,
                          "it has more than " + std::to_string(kMaxTokens) + " parts");
    }
    tokens_.push_back({kind, line_, std::move(word), std::move(text)});
  }

  // Goes on at `to`; counts the lines between.
  void move_to(std::size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(to), U'\n'));
    if (to > at_) line_starts_ = source_[to - 1] == '\n';
    at_ = to;
  }

  void skip_spaces_to(std::size_t to) {
    while (space_at(to)) ++to;
    move_to(to);
  }

  // Text up to the next block, variable or comment, and that.
  void outside() {
    std::size_t found = at_;
    Begin begin = Begin::kBlock;
    for (;; ++found) {
      found = source_.find(U'{', found);
      if (found == Text::npos) break;
      if (looking_at("{%", found)) {
        begin = Begin::kBlock;
      } else if (looking_at("{{", found)) {
        begin = Begin::kVariable;
      } else if (looking_at("{#", found)) {
        begin = Begin::kComment;
      } else {
        continue;
      }
      break;
    }
    if (found == Text::npos) {
      add(TokenKind::kData, {}, source_.substr(at_));
      move_to(source_.size());
      return;
    }
    const Unit sign = found + 2 < source_.size() ? source_[found + 2] : 0;
    const bool signed_begin = sign == '-' || sign == '+';
    add_data(found, sign, begin != Begin::kVariable);
    const std::size_t inside = found + (signed_begin ? 3 : 2);
    if (begin == Begin::kComment) {
      comment(inside);
    } else if (begin == Begin::kVariable) {
      line_starts_ = false;
      add(TokenKind::kVariableBegin);
      move_to(inside);
      code(TokenKind::kVariableEnd);
    } else if (const std::size_t raw_begin = raw_end(inside, "raw", false); raw_begin != 0) {
      raw(raw_begin);
    } else {
      line_starts_ = false;
      add(TokenKind::kBlockBegin);
      move_to(inside);
      code(TokenKind::kBlockEnd);
    }
  }

  // The text from here to `end`, stripped as the sign behind it says.
  void add_data(std::size_t end, Unit sign, bool strip_line) {
    std::size_t last = end;
    if (sign == '-') {
      while (last > at_ && is_space(source_[last - 1])) --last;
    } else if (sign != '+' && strip_line) {
      std::size_t line = end;
      while (line > at_ && source_[line - 1] != '\n') --line;
      if ((line > at_ || line_starts_) &&
          std::all_of(source_.begin() + static_cast<std::ptrdiff_t>(line),
                      source_.begin() + static_cast<std::ptrdiff_t>(end), is_space)) {
        last = line;
      }
    }
    if (last > at_) add(TokenKind::kData, {}, source_.substr(at_, last - at_));
    move_to(end);
  }

  void comment(std::size_t inside) {
    if (inside == source_.size()) return move_to(inside);  // jinja sees no comment to end
    for (std::size_t i = inside;; ++i) {
      i = source_.find(U'#', i);
      if (i == Text::npos) fail_syntax("Missing end of comment tag", line_);
      if (!looking_at("#}", i)) continue;
      const Unit before = i > inside ? source_[i - 1] : 0;
      if (before == '-') return skip_spaces_to(i + 2);
      return move_to(before != '+' && looking_at("\n", i + 2) ? i + 3 : i + 2);
    }
  }

  // Where "raw %}" or "endraw %}", read from `at`, ends; 0: something else stands there.
  std::size_t raw_end(std::size_t at, std::string_view word, bool is_end) {
    while (space_at(at)) ++at;
    if (!looking_at(word, at)) return 0;
    at += word.size();
    while (space_at(at)) ++at;
    if (looking_at("-%}", at)) {
      at += 3;
      while (space_at(at)) ++at;
      return at;
    }
    if (is_end && looking_at("+%}", at)) return at + 3;
    if (!looking_at("%}", at)) return 0;
    return is_end && looking_at("\n", at + 2) ? at + 3 : at + 2;
  }

  void raw(std::size_t inside) {
    move_to(inside);
    if (inside == source_.size()) return;
    for (std::size_t i = at_;; ++i) {
      i = source_.find(U'{', i);
      if (i == Text::npos) fail_syntax("Missing end of raw directive", line_);
      if (!looking_at("{%", i)) continue;
      const Unit sign = i + 2 < source_.size() ? source_[i + 2] : 0;
      const std::size_t word = i + (sign == '-' || sign == '+' ? 3 : 2);
      budget_.work(word - i);
      const std::size_t end = raw_end(word, "endraw", true);
      if (end == 0) continue;
      add_data(i, sign, true);
      return move_to(end);
    }
  }

  // Tokens up to the end of a block or variable.
  void code(TokenKind end) {
    std::string open;
    while (at_ < source_.size()) {
      budget_.work(8);
      if (open.empty() && code_end(end)) return;
      if (is_space(peek())) {
        skip_spaces_to(at_ + 1);
      } else if (is_digit(peek())) {
        number();
      } else if (is_name_part(peek())) {
        name();
      } else if (peek() == '\'' || peek() == '"') {
        string();
      } else {
        operation(open);
      }
    }
  }

  bool code_end(TokenKind end) {
    const std::string_view mark = end == TokenKind::kBlockEnd ? "%}" : "}}";
    if (peek() == '-' && looking_at(mark, at_ + 1)) {
      add(end);
      skip_spaces_to(at_ + 3);
      return true;
    }
    const bool plus = end == TokenKind::kBlockEnd && peek() == '+' && looking_at(mark, at_ + 1);
    if (!plus && !looking_at(mark, at_)) return false;
    add(end);
    std::size_t to = at_ + (plus ? 3 : 2);
    if (end == TokenKind::kBlockEnd && !plus && looking_at("\n", to)) ++to;
    move_to(to);
    return true;
  }

  // Digits with single underscores between them.
  std::size_t digits_end(std::size_t at, std::string_view allowed) const {
    const auto is_allowed = [&](std::size_t i) {
      return i < source_.size() && source_[i] < 0x80 &&
             allowed.find(static_cast<char>(source_[i])) != std::string_view::npos;
    };
    std::size_t end = at;
    while (is_allowed(end) || (end > at && source_[end] == '_' && is_allowed(end + 1))) ++end;
    return end;
  }

  void number() {
    constexpr std::string_view kDigits = "0123456789";
    const std::size_t whole = digits_end(at_, kDigits);
    std::size_t end = whole;
    if (at_ == 0 || source_[at_ - 1] != '.') {
      if (end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1])) {
        end = digits_end(end + 1, kDigits);
      }
      if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
        std::size_t exponent = end + 1;
        if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-')) {
          ++exponent;
        }
        if (exponent < source_.size() && is_digit(source_[exponent])) {
          end = digits_end(exponent, kDigits);
        }
      }
    }
    TokenKind kind = TokenKind::kFloat;
    if (end == whole) {
      kind = TokenKind::kInteger;
      const Unit base = peek(1) | 0x20;
      const std::string_view allowed = base == 'b'   ? "01"
                                       : base == 'o' ? "01234567"
                                       : base == 'x' ? "0123456789abcdefABCDEF"
                                                     : "";
      if (peek() == '0' && !allowed.empty()) {
        const std::size_t first = at_ + (peek(2) == '_' ? 3 : 2);
        if (const std::size_t prefixed = digits_end(first, allowed); prefixed > first) {
          end = prefixed;
        }
      } else if (peek() == '0') {
        end = digits_end(at_, "0");
      }
    }
    std::string word;
    for (std::size_t i = at_; i < end; ++i) {
      if (source_[i] != '_') word += static_cast<char>(source_[i]);
    }
    add(kind, std::move(word));
    move_to(end);
  }

  void name() {
    std::size_t end = at_;
    while (end < source_.size() && is_name_part(source_[end])) ++end;
    const TextView word = TextView(source_).substr(at_, end - at_);
    if (word[0] != '_' && !has_property(word[0], kAlpha)) {
      fail_syntax("Invalid character in identifier", line_);
    }
    add(TokenKind::kName, to_bytes(word));
    move_to(end);
  }

  void string() {
    const Unit quote = peek();
    Text text;
    std::size_t i = at_ + 1;
    while (i < source_.size() && source_[i] != quote) {
      if (source_[i] != '\\') {
        text.push_back(source_[i++]);
      } else {
        i = escape(i + 1, text);
      }
    }
    if (i >= source_.size()) fail_syntax("a string has no end", line_);
    add(TokenKind::kString, {}, std::move(text));
    move_to(i + 1);
  }

  // What stands behind a backslash, as in Python.
  std::size_t escape(std::size_t i, Text& out) {
    if (i >= source_.size()) fail_syntax("a string has no end", line_);
    const Unit c = source_[i];
    constexpr std::string_view kLetters = "abfnrtv\\'\"";
    constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
    if (c == '\n') return i + 1;
    if (c < 0x80) {
      const std::size_t known = kLetters.find(static_cast<char>(c));
      if (known != std::string_view::npos) {
        out.push_back(static_cast<unsigned char>(kMeanings[known]));
        return i + 1;
      }
    }
    if (c >= '0' && c <= '7') {
      Unit value = 0;
      const std::size_t end = std::min(i + 3, source_.size());
      for (; i < end && source_[i] >= '0' && source_[i] <= '7'; ++i) {
        value = value * 8 + source_[i] - '0';
      }
      out.push_back(value);
      return i;
    }
    const std::size_t n_digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (c == 'N') fail_syntax("\\N{...} in strings is not supported", line_);
    if (n_digits == 0) {
      out.push_back('\\');
      out.push_back(c);
      return i + 1;
    }
    Unit value = 0;
    for (std::size_t n = 1; n <= n_digits; ++n) {
      const Unit digit = i + n < source_.size() ? source_[i + n] | 0x20 : 0;
      const bool letter = digit >= 'a' && digit <= 'f';
      const Unit plain = i + n < source_.size() ? source_[i + n] : 0;
      if (!letter && !is_digit(plain)) fail_syntax("a wrong \\x, \\u or \\U in a string", line_);
      value = value * 16 + (letter ? digit - 'a' + 10 : plain - '0');
    }
    if (value > 0x10ffff) fail_syntax("a wrong \\U in a string", line_);
    out.push_back(value);
    return i + 1 + n_digits;
  }

  void operation(std::string& open) {
    std::string word;
    for (const std::string_view candidate : kLongOperators) {
      if (looking_at(candidate, at_)) word = candidate;
    }
    if (word.empty() && peek() < 0x80 &&
        kShortOperators.find(static_cast<char>(peek())) != std::string_view::npos) {
      word = static_cast<char>(peek());
    }
    if (word.empty()) {
      fail_syntax("unexpected char '" + printable(to_bytes(TextView(source_).substr(at_, 1))) + "'",
                  line_);
    }
    if (word == "{" || word == "(" || word == "[") {
      open += word == "{" ? '}' : word == "(" ? ')' : ']';
    } else if (word == "}" || word == ")" || word == "]") {
      if (open.empty()) fail_syntax("unexpected '" + word + "'", line_);
      if (open.back() != word[0]) {
        fail_syntax("unexpected '" + word + "', expected '" + open.back() + "'", line_);
      }
      open.pop_back();
    }
    const std::size_t n = word.size();
    add(TokenKind::kOperator, std::move(word));
    move_to(at_ + n);
  }

  Budget& budget_;
  Text source_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starts_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

void fail_syntax(const std::string& message, int line) {
  throw TemplateError(Problem::kSyntax, message + " (line " + std::to_string(line) + ")");
}

std::vector<Token> cut_template(Budget& budget, std::string_view source) {
  if (source.size() > kMaxTemplateBytes) {
    throw TemplateError(Problem::kLimit,
                        "it is larger than " + std::to_string(kMaxTemplateBytes) + " bytes");
  }
  return Lexer(budget, source).run();
}

}  // namespace specdec::chat
