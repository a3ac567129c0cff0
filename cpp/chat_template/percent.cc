// "..." % values, as Python formats.
#include <algorithm>
#include <cmath>

#include "chat_template/builtins.h"
#include "chat_template/unicode.h"

namespace specdec::chat {
namespace {

struct Spec {
  bool left = false, plus = false, space = false, alternate = false, zeros = false;
  std::int64_t width = 0;
  std::int64_t precision = -1;
  char letter = 's';
};

class PercentFormatter {
 public:
  PercentFormatter(Interpreter& interpreter, TextView format, const Value& values)
      : interpreter_(interpreter), format_(format), values_(values), out_(interpreter.budget()) {
    if (values.is(Kind::kTuple)) items_ = values.as_list().items;
    mapping_ = values.is(Kind::kDict);
    // A list counts as a mapping for Python: it need not be used up.
    must_use_ = !values.is(Kind::kDict) && !values.is(Kind::kList) && !values.is(Kind::kRange) &&
                !values.is(Kind::kUndefined);
  }

  Value run() {
    while (at_ < format_.size()) {
      const std::size_t percent = std::min(format_.find(U'%', at_), format_.size());
      out_.append(format_.substr(at_, percent - at_));
      at_ = percent;
      if (at_ < format_.size()) conversion();
    }
    const std::size_t n_given = values_.is(Kind::kTuple) ? items_.size() : 1;
    if (must_use_ && n_used_ < n_given && !used_mapping_) {
      fail("not all arguments converted during string formatting");
    }
    return out_.take();
  }

 private:
  Unit next() {
    if (at_ >= format_.size()) fail("incomplete format");
    interpreter_.budget().work(4);
    return format_[at_++];
  }

  const Value& next_value() {
    if (values_.is(Kind::kTuple)) {
      if (n_used_ >= items_.size()) fail("not enough arguments for format string");
      return items_[n_used_++];
    }
    if (n_used_++ > 0) fail("not enough arguments for format string");
    return values_;
  }

  std::int64_t number(Unit first) {
    std::int64_t value = 0;
    for (Unit c = first;; c = next()) {
      const Unit code = code_of(c);
      if (code < '0' || code > '9') {
        --at_;
        return value;
      }
      value = value * 10 + static_cast<std::int64_t>(code - '0');
      if (value > 100'000'000) fail("width too big");
    }
  }

  std::int64_t star() {
    const Value& value = next_value();
    if (!value.is_whole()) fail("* wants int");
    if (value.as_int() > 100'000'000 || value.as_int() < -100'000'000) fail("width too big");
    return value.as_int();
  }

  void conversion() {
    ++at_;  // %
    Value found;
    bool has_key = false;
    Unit c = next();
    if (code_of(c) == '(') {
      std::size_t depth = 1;
      const std::size_t begin = at_;
      while (depth > 0) {
        c = next();
        depth += code_of(c) == '(' ? 1 : code_of(c) == ')' ? -1 : 0;
      }
      if (!mapping_) fail("format requires a mapping");
      const Value key =
          Value::text(interpreter_.budget(), Text(format_.substr(begin, at_ - 1 - begin)));
      const Value* value = values_.as_dict().find(key);
      if (value == nullptr) fail("the mapping lacks a key that the format names");
      found = *value;
      has_key = true;
      used_mapping_ = true;
      c = next();
    }
    Spec spec;
    for (;; c = next()) {
      const Unit code = code_of(c);
      if (code == '-') {
        spec.left = true;
      } else if (code == '+') {
        spec.plus = true;
      } else if (code == ' ') {
        spec.space = true;
      } else if (code == '#') {
        spec.alternate = true;
      } else if (code == '0') {
        spec.zeros = true;
      } else {
        break;
      }
    }
    if (code_of(c) == '*') {
      spec.width = star();
      if (spec.width < 0) {
        spec.left = true;
        spec.width = -spec.width;
      }
      c = next();
    } else if (decimal_value(c) >= 0 && code_of(c) < 0x80) {
      spec.width = number(c);
      c = next();
    }
    if (code_of(c) == '.') {
      c = next();
      if (code_of(c) == '*') {
        spec.precision = std::max<std::int64_t>(star(), 0);
      } else {
        spec.precision = number(c);
      }
      c = next();
    }
    if (code_of(c) == 'h' || code_of(c) == 'l' || code_of(c) == 'L') c = next();
    spec.letter = code_of(c) < 0x80 ? static_cast<char>(code_of(c)) : '?';
    if (spec.letter == '%') {
      out_.push('%' | (c & kCallers));
      return;
    }
    if (std::string_view("sradiuoxXeEfFgGc").find(spec.letter) == std::string_view::npos) {
      fail("unsupported format character");
    }
    write(spec, has_key ? found : next_value());
  }

  void padded(const Spec& spec, TextView body, bool numeric) {
    const auto n = static_cast<std::int64_t>(body.size());
    const auto missing = static_cast<std::size_t>(std::max<std::int64_t>(spec.width - n, 0));
    if (spec.left) {
      out_.append(body);
      out_.repeat(' ', missing);
      return;
    }
    if (!numeric || !spec.zeros) {
      out_.repeat(' ', missing);
      out_.append(body);
      return;
    }
    // Zeros stand between the sign (and 0x) and the digits.
    std::size_t head = 0;
    if (!body.empty() &&
        (code_of(body[0]) == '-' || code_of(body[0]) == '+' || code_of(body[0]) == ' ')) {
      head = 1;
    }
    if (spec.alternate && spec.letter != 'd' && body.size() >= head + 2) head += 2;
    out_.append(body.substr(0, head));
    out_.repeat('0', missing);
    out_.append(body.substr(head));
  }

  void write(const Spec& spec, const Value& value) {
    TextBuilder body(interpreter_.budget());
    switch (spec.letter) {
      case 's':
      case 'r':
      case 'a': {
        if (spec.letter == 's') {
          body.write(value);
        } else {
          body.write_repr(value);
        }
        if (spec.letter == 'a') {
          for (const Unit unit : body.view()) {
            if (code_of(unit) >= 0x80) fail("%a of text that is not ASCII is not supported");
          }
        }
        TextView text = body.view();
        if (spec.precision >= 0) text = text.substr(0, static_cast<std::size_t>(spec.precision));
        return padded(spec, text, false);
      }
      case 'c':
        if (value.is(Kind::kText) && value.as_text().size() == 1) {
          body.append(value.as_text());
        } else if (value.is_whole() && value.as_int() >= 0 && value.as_int() < 0x110000) {
          body.push(static_cast<Unit>(value.as_int()) | value.mark());
        } else {
          fail("%c requires int or char");
        }
        return padded(spec, body.view(), false);
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        return write_real(spec, value);
      default:
        return write_whole(spec, value);
    }
  }

  void write_sign(const Spec& spec, TextBuilder& body, bool negative, Unit mark) const {
    if (negative) {
      body.push('-' | mark);
    } else if (spec.plus) {
      body.push('+');
    } else if (spec.space) {
      body.push(' ');
    }
  }

  void write_whole(const Spec& spec, const Value& value) {
    require_defined(value);
    std::int64_t number = 0;
    const bool needs_int = spec.letter == 'x' || spec.letter == 'X' || spec.letter == 'o';
    if (value.is_whole()) {
      number = value.as_int();
    } else if (value.is(Kind::kFloat) && !needs_int && std::abs(value.as_double()) < 9e18) {
      number = static_cast<std::int64_t>(value.as_double());
    } else {
      fail(std::string("%") + spec.letter + " format: a number is required, not " +
           type_name(value));
    }
    const std::uint64_t size =
        number < 0 ? 0 - static_cast<std::uint64_t>(number) : static_cast<std::uint64_t>(number);
    const unsigned base = spec.letter == 'o' ? 8 : needs_int ? 16 : 10;
    // Not an array chosen and indexed at once: with -fsanitize=bounds GCC 12 loses the index.
    const std::string_view figures = spec.letter == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    std::string digits;
    for (std::uint64_t rest = size; rest > 0 || digits.empty(); rest /= base) {
      digits += figures[rest % base];
    }
    std::reverse(digits.begin(), digits.end());
    TextBuilder body(interpreter_.budget());
    write_sign(spec, body, number < 0, value.mark());
    if (spec.alternate && needs_int) {
      body.ascii(spec.letter == 'o' ? "0o" : spec.letter == 'x' ? "0x" : "0X");
    }
    if (spec.precision > static_cast<std::int64_t>(digits.size())) {
      body.repeat('0', static_cast<std::size_t>(spec.precision) - digits.size());
    }
    body.ascii(digits, value.mark());
    padded(spec, body.view(), true);
  }

  void write_real(const Spec& spec, const Value& value) {
    require_defined(value);
    if (!value.is_number()) fail("must be real number, not " + type_name(value));
    if (spec.precision > 1000) fail("a precision above 1000 is not supported");
    const double number = value.as_double();
    const bool negative = std::signbit(number) && !std::isnan(number);
    TextBuilder body(interpreter_.budget());
    write_sign(spec, body, negative, value.mark());
    body.ascii(
        float_digits(std::abs(number), spec.letter,
                     spec.precision < 0 ? 6 : static_cast<int>(spec.precision), spec.alternate),
        value.mark());
    padded({.left = spec.left,
            .zeros = spec.zeros && std::isfinite(number),
            .width = spec.width,
            .letter = 'd'},
           body.view(), true);
  }

  Interpreter& interpreter_;
  TextView format_;
  const Value& values_;
  TextBuilder out_;
  Values items_;
  std::size_t at_ = 0, n_used_ = 0;
  bool mapping_ = false, must_use_ = false, used_mapping_ = false;
};

}  // namespace

Value percent_format(Interpreter& interpreter, const Value& format, const Value& values) {
  if (format.is_markup()) fail("'%' of a value made with 'safe' is not supported");
  return PercentFormatter(interpreter, format.as_text(), values).run();
}

}  // namespace specdec::chat
