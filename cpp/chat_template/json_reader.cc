#include "chat_template/json_reader.h"

#include <charconv>
#include <limits>

#include "base/read_real.h"

namespace specdec::chat {
namespace {

constexpr int kMaxJsonDepth = 80;

class JsonReader {
 public:
  JsonReader(Budget& budget, std::string_view text, Unit mark, const std::string& what)
      : budget_(budget), text_(text), mark_(mark), what_(what) {}

  Value run() {
    Value value = read(0);
    skip_spaces();
    if (at_ != text_.size()) wrong("nothing more");
    return value;
  }

 private:
  [[noreturn]] void wrong(const std::string& expected) const {
    const std::string found =
        at_ < text_.size() ? "'" + printable(text_.substr(at_, 20)) + "'" : std::string("the end");
    throw_invalid(what_ + " is not JSON: at byte " + std::to_string(at_) + " expected " + expected +
                  ", found " + found);
  }

  void skip_spaces() {
    while (at_ < text_.size() &&
           std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) {
      ++at_;
    }
  }

  bool skip(char c) {
    skip_spaces();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  bool skip_word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  Value read(int depth) {
    budget_.step();
    skip_spaces();
    if (depth > kMaxJsonDepth) {
      throw_invalid(what_ + " nests deeper than " + std::to_string(kMaxJsonDepth));
    }
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    if (c == '"') return Value::text(budget_, string());
    if (c == '[') return list(depth);
    if (c == '{') return dict(depth);
    const bool callers = mark_ != 0;
    if (skip_word("null")) return Value::none();
    if (skip_word("true")) return Value::boolean(true, callers);
    if (skip_word("false")) return Value::boolean(false, callers);
    if (skip_word("NaN")) return Value::real(std::numeric_limits<double>::quiet_NaN(), callers);
    if (skip_word("Infinity")) return Value::real(std::numeric_limits<double>::infinity(), callers);
    if (skip_word("-Infinity")) {
      return Value::real(-std::numeric_limits<double>::infinity(), callers);
    }
    return number();
  }

  Value list(int depth) {
    ++at_;
    Values items;
    if (!skip(']')) {
      do {
        items.push_back(read(depth + 1));
      } while (skip(','));
      if (!skip(']')) wrong("',' or ']'");
    }
    return Value::list(budget_, std::move(items));
  }

  Value dict(int depth) {
    ++at_;
    const Ref<DictData> dict = make_heap<DictData>(budget_);
    if (!skip('}')) {
      do {
        skip_spaces();
        if (at_ >= text_.size() || text_[at_] != '"') wrong("a name in quotes");
        const Value key = Value::text(budget_, string());
        if (!skip(':')) wrong("':'");
        dict->set(key, read(depth + 1));
      } while (skip(','));
      if (!skip('}')) wrong("',' or '}'");
    }
    return Value::dict(dict);
  }

  Unit hex4() {
    std::uint32_t code = 0;
    const char* first = text_.data() + at_;
    const char* last = text_.data() + std::min(at_ + 4, text_.size());
    const auto end = std::from_chars(first, last, code, 16);
    if (end.ptr != first + 4) wrong("four hexadecimal digits");
    at_ += 4;
    return code;
  }

  Text string() {
    ++at_;
    Text out;
    while (true) {
      const std::size_t end = text_.find_first_of("\"\\", at_);
      if (end == std::string_view::npos) {
        at_ = text_.size();
        wrong("the end of a text");
      }
      budget_.work(2 * (end - at_) + 8);
      out += decode_text(text_.substr(at_, end - at_), mark_);
      at_ = end + 1;
      if (text_[end] == '"') return out;
      const char c = at_ < text_.size() ? text_[at_++] : '\0';
      constexpr std::string_view kLetters = "\"\\/bfnrt";
      constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
      const std::size_t known = kLetters.find(c);
      if (c == 'u') {
        Unit code = hex4();
        if (code >= 0xd800 && code < 0xdc00 && text_.substr(at_, 2) == "\\u") {
          const std::size_t before = at_;
          at_ += 2;
          const Unit low = hex4();
          if (low >= 0xdc00 && low < 0xe000) {
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
          } else {
            at_ = before;
          }
        }
        out.push_back(code | mark_);
      } else if (known != std::string_view::npos && c != '\0') {
        out.push_back(static_cast<unsigned char>(kMeanings[known]) | mark_);
      } else {
        --at_;
        wrong("an escape such as \\n");
      }
    }
  }

  Value number() {
    std::size_t end = at_;
    bool real = false;
    while (end < text_.size() &&
           std::string_view("+-.0123456789eE").find(text_[end]) != std::string_view::npos) {
      real |= text_[end] == '.' || text_[end] == 'e' || text_[end] == 'E';
      ++end;
    }
    const char* first = text_.data() + at_;
    const char* last = text_.data() + end;
    budget_.work(4 * (end - at_));
    if (real) {
      double value = 0;
      const auto parsed = read_real(first, last, value);
      if (parsed.ptr != last || first == last) wrong("a value");
      if (parsed.ec == std::errc::result_out_of_range) {
        throw_invalid(what_ + ": the number at byte " + std::to_string(at_) + " is out of range");
      }
      at_ = end;
      return Value::real(value, mark_ != 0);
    }
    std::int64_t value = 0;
    const auto parsed = std::from_chars(first, last, value);
    if (parsed.ec == std::errc::result_out_of_range) {
      throw_invalid(what_ + ": the number at byte " + std::to_string(at_) +
                    " does not fit into 64 bits");
    }
    if (parsed.ec != std::errc() || parsed.ptr != last) wrong("a value");
    at_ = end;
    return Value::integer(value, mark_ != 0);
  }

  Budget& budget_;
  std::string_view text_;
  Unit mark_;
  const std::string& what_;
  std::size_t at_ = 0;
};

}  // namespace

Value read_json(Budget& budget, std::string_view text, Unit mark, const std::string& what) {
  return JsonReader(budget, text, mark, what).run();
}

}  // namespace specdec::chat
