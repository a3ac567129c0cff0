#include "cli/json_reader.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "tokenizer/utf8.h"

namespace specdec::cli {
namespace {

constexpr int kMaxDepth = 64;

class Parser {
 public:
  Parser(std::string_view text, const std::string& origin) : text_(text), origin_(origin) {}

  JsonValue document() {
    JsonValue out = value(0);
    skip_space();
    if (at_ != text_.size()) fail("something after the document");
    return out;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    const auto line =
        1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n');
    throw Error(ErrorCode::kModelFormat,
                printable(origin_, 400) + ":" + std::to_string(line) + ": is not JSON: " + what);
  }

  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != text_.npos) ++at_;
  }

  [[nodiscard]] bool take(char c) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void expect(char c) {
    if (!take(c)) fail(std::string("expected '") + c + "'");
  }

  [[nodiscard]] bool take_word(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  JsonValue value(int depth) {
    if (depth > kMaxDepth) fail("nested too deeply");
    skip_space();
    if (at_ == text_.size()) fail("ends too early");
    JsonValue out;
    const char c = text_[at_];
    if (c == '{') {
      object(out, depth);
    } else if (c == '[') {
      array(out, depth);
    } else if (c == '"') {
      out.kind = JsonValue::Kind::kText;
      out.text = string();
    } else if (c == '-' || (c >= '0' && c <= '9')) {
      out.kind = JsonValue::Kind::kNumber;
      out.text = number();
    } else if (take_word("true") || take_word("false")) {
      out.kind = JsonValue::Kind::kBool;
      out.flag = c == 't';
    } else if (!take_word("null")) {
      fail("expected a value");
    }
    return out;
  }

  void object(JsonValue& out, int depth) {
    out.kind = JsonValue::Kind::kObject;
    expect('{');
    if (take('}')) return;
    do {
      skip_space();
      std::string name = string();
      expect(':');
      out.members.emplace_back(std::move(name), value(depth + 1));
    } while (take(','));
    expect('}');
  }

  void array(JsonValue& out, int depth) {
    out.kind = JsonValue::Kind::kArray;
    expect('[');
    if (take(']')) return;
    do {
      out.items.push_back(value(depth + 1));
    } while (take(','));
    expect(']');
  }

  std::string number() {
    const std::size_t begin = at_;
    const auto digits = [this] {
      const std::size_t first = at_;
      while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
      if (at_ == first) fail("expected a digit");
      return at_ - first;
    };
    if (text_[at_] == '-') ++at_;
    const bool zero = at_ < text_.size() && text_[at_] == '0';
    if (digits() > 1 && zero) fail("a number begins with 0");
    if (at_ < text_.size() && text_[at_] == '.') {
      ++at_;
      digits();
    }
    if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      ++at_;
      if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) ++at_;
      digits();
    }
    return std::string(text_.substr(begin, at_ - begin));
  }

  std::uint32_t four_hex_digits() {
    std::uint32_t out = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : ' ';
      const std::size_t digit = std::string_view("0123456789abcdef")
                                    .find(c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c);
      if (digit == std::string_view::npos) fail("\\u needs four hexadecimal digits");
      out = out * 16 + static_cast<std::uint32_t>(digit);
    }
    return out;
  }

  void escape(std::string& out) {
    if (at_ == text_.size()) fail("a text without an end");
    const char c = text_[at_++];
    constexpr std::string_view kNames = "\"\\/bfnrt", kChars = "\"\\/\b\f\n\r\t";
    if (const std::size_t found = kNames.find(c); found != kNames.npos) {
      out += kChars[found];
      return;
    }
    if (c != 'u') fail("an unknown escape");
    std::uint32_t code_point = four_hex_digits();
    if (code_point >= 0xd800 && code_point < 0xdc00 && take_word("\\u")) {
      const std::uint32_t low = four_hex_digits();
      if (low < 0xdc00 || low >= 0xe000) fail("half a surrogate pair");
      code_point = 0x10000 + ((code_point - 0xd800) << 10) + (low - 0xdc00);
    }
    if (code_point >= 0xd800 && code_point < 0xe000) fail("half a surrogate pair");
    append_utf8(out, code_point);
  }

  std::string string() {
    if (at_ == text_.size() || text_[at_] != '"') fail("expected a text in quotes");
    ++at_;
    std::string out;
    while (true) {
      if (at_ == text_.size()) fail("a text without an end");
      const char c = text_[at_];
      if (c == '"') break;
      if (static_cast<unsigned char>(c) < 32) fail("a control character in a text");
      if (c == '\\') {
        ++at_;
        escape(out);
        continue;
      }
      const Utf8Char next = decode_utf8(text_, at_);
      if (next.code_point == kInvalidByte) fail("bytes that are not UTF-8");
      out += text_.substr(at_, next.n_bytes);
      at_ += next.n_bytes;
    }
    ++at_;
    return out;
  }

  std::string_view text_;
  const std::string& origin_;
  std::size_t at_ = 0;
};

}  // namespace

const JsonValue* JsonValue::find(std::string_view name) const noexcept {
  for (auto i = members.rbegin(); i != members.rend(); ++i) {
    if (i->first == name) return &i->second;
  }
  return nullptr;
}

JsonValue parse_json(std::string_view text, const std::string& origin) {
  return Parser(text, origin).document();
}

}  // namespace specdec::cli
