// "...".format(...) and format(value, spec).
#include <algorithm>
#include <charconv>
#include <cmath>

#include "chat_template/builtins.h"
#include "chat_template/unicode.h"

namespace specdec::chat {
namespace {

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& interpreter, const Arguments& arguments)
      : interpreter_(interpreter), arguments_(arguments) {}

  void run(TextView format, TextBuilder& out, int levels) {
    if (levels < 0) fail("Max string recursion exceeded");
    for (std::size_t i = 0; i < format.size(); ++i) {
      const Unit c = code_of(format[i]);
      const bool twice = i + 1 < format.size() && code_of(format[i + 1]) == c;
      if ((c == '{' || c == '}') && twice) {
        out.push(format[i++]);
      } else if (c == '}') {
        fail("Single '}' encountered in format string");
      } else if (c != '{') {
        out.push(format[i]);
      } else {
        i = field(format, i + 1, out, levels);
      }
    }
  }

 private:
  // The replacement field whose inside begins at `begin`; returns where its brace closes.
  std::size_t field(TextView format, std::size_t begin, TextBuilder& out, int levels) {
    std::size_t depth = 1, end = begin;
    for (; end < format.size(); ++end) {
      interpreter_.budget().work(1);
      const Unit c = code_of(format[end]);
      depth += c == '{' ? 1 : c == '}' ? -1 : 0;
      if (depth == 0) break;
    }
    if (end == format.size()) fail("expected '}' before end of string");
    const TextView inside = format.substr(begin, end - begin);
    // name [!conversion] [:spec]; brackets of the name may hold both marks.
    std::size_t name_end = 0;
    bool in_brackets = false;
    for (; name_end < inside.size(); ++name_end) {
      const Unit c = code_of(inside[name_end]);
      if (c == '{') fail("unexpected '{' in field name");
      if (c == '[') in_brackets = true;
      if (c == ']') in_brackets = false;
      if (!in_brackets && (c == '!' || c == ':')) break;
    }
    Value value = look_up(inside.substr(0, name_end));
    TextView rest = inside.substr(name_end);
    if (!rest.empty() && code_of(rest[0]) == '!') {
      const Unit conversion = rest.size() > 1 ? code_of(rest[1]) : 0;
      if (rest.size() > 2 && code_of(rest[2]) != ':') {
        fail("expected ':' after conversion specifier");
      }
      TextBuilder converted(interpreter_.budget());
      if (conversion == 's') {
        converted.write(value);
      } else if (conversion == 'r') {
        converted.write_repr(value);
      } else {
        fail("Unknown conversion specifier in a format");
      }
      value = converted.take();
      rest.remove_prefix(std::min<std::size_t>(2, rest.size()));
    }
    if (!rest.empty()) rest.remove_prefix(1);
    TextBuilder spec(interpreter_.budget());
    run(rest, spec, levels - 1);
    format_value(interpreter_, out, value, spec.view());
    return end;
  }

  Value look_up(TextView name) {
    std::size_t end = 0;
    while (end < name.size() && code_of(name[end]) != '.' && code_of(name[end]) != '[') ++end;
    const TextView first = name.substr(0, end);
    Value value = base(first, name.size() > end);
    TextView rest = name.substr(end);
    while (!rest.empty()) {
      if (code_of(rest[0]) == '.') {
        std::size_t stop = 1;
        while (stop < rest.size() && code_of(rest[stop]) != '.' && code_of(rest[stop]) != '[')
          ++stop;
        if (stop == 1) fail("Empty attribute in format string");
        value = interpreter_.attribute(value, text(rest.substr(1, stop - 1)));
        rest.remove_prefix(stop);
      } else {
        const std::size_t close = rest.find(U']');
        if (code_of(rest[0]) != '[' || close == TextView::npos || close == 1) {
          fail("Missing ']' in format string");
        }
        const TextView index = rest.substr(1, close - 1);
        const std::optional<std::int64_t> number = whole(index);
        value = interpreter_.subscript(value, number ? Value::integer(*number) : text(index));
        rest.remove_prefix(close + 1);
        if (!rest.empty() && code_of(rest[0]) != '.' && code_of(rest[0]) != '[') {
          fail("Only '.' or '[' may follow ']' in format field specifier");
        }
      }
    }
    return value;
  }

  Value base(TextView name, bool has_rest) {
    if (name.empty()) {
      if (has_rest) fail("a format field without a name or number before '.' or '['");
      if (numbering_ == Numbering::kManual) {
        fail("cannot switch from manual field specification to automatic field numbering");
      }
      numbering_ = Numbering::kAutomatic;
      return positional(n_automatic_++);
    }
    if (const std::optional<std::int64_t> number = whole(name)) {
      if (numbering_ == Numbering::kAutomatic) {
        fail("cannot switch from manual field specification to automatic field numbering");
      }
      numbering_ = Numbering::kManual;
      return positional(static_cast<std::size_t>(*number));
    }
    const std::string wanted = to_bytes(name.substr(0, 200));
    for (const auto& [other, value] : arguments_.named) {
      if (other == wanted) return value;
    }
    fail("a format names '" + printable(wanted) + "', which is not given");
  }

  [[nodiscard]] Value positional(std::size_t i) const {
    if (i >= arguments_.positional.size()) {
      fail("Replacement index " + std::to_string(i) + " out of range for positional args tuple");
    }
    return arguments_.positional[i];
  }

  [[nodiscard]] static std::optional<std::int64_t> whole(TextView digits) {
    if (digits.empty() || digits.size() > 9) return std::nullopt;
    std::int64_t value = 0;
    for (const Unit unit : digits) {
      if (code_of(unit) < '0' || code_of(unit) > '9') return std::nullopt;
      value = value * 10 + static_cast<std::int64_t>(code_of(unit) - '0');
    }
    return value;
  }

  Value text(TextView part) { return Value::text(interpreter_.budget(), Text(part)); }

  enum class Numbering { kNone, kAutomatic, kManual };

  Interpreter& interpreter_;
  const Arguments& arguments_;
  Numbering numbering_ = Numbering::kNone;
  std::size_t n_automatic_ = 0;
};

// [[fill]align][sign][#][0][width][grouping][.precision][type]
struct Spec {
  Unit fill = ' ';
  char align = 0;  // < > ^ =
  char sign = '-';
  bool alternate = false;
  std::size_t width = 0;
  char grouping = 0;
  int precision = -1;
  char type = 0;
};

bool is_align(Unit unit) {
  const Unit c = code_of(unit);
  return c == '<' || c == '>' || c == '^' || c == '=';
}

Spec parse_spec(TextView text) {
  Spec spec;
  std::size_t i = 0;
  const auto at = [&](std::size_t k) { return k < text.size() ? code_of(text[k]) : 0; };
  const auto number = [&](std::int64_t most) {
    std::int64_t value = 0;
    for (; at(i) >= '0' && at(i) <= '9'; ++i) {
      value = value * 10 + static_cast<std::int64_t>(at(i) - '0');
      if (value > most) fail("a width or precision of a format is too large");
    }
    return value;
  };
  if (text.size() > 1 && is_align(text[1])) {
    spec.fill = text[0];
    spec.align = static_cast<char>(at(1));
    i = 2;
  } else if (!text.empty() && is_align(text[0])) {
    spec.align = static_cast<char>(at(0));
    i = 1;
  }
  if (at(i) == '+' || at(i) == '-' || at(i) == ' ') spec.sign = static_cast<char>(at(i++));
  if (at(i) == '#') {
    spec.alternate = true;
    ++i;
  }
  if (at(i) == '0') {
    if (spec.align == 0) {
      spec.fill = '0';
      spec.align = '=';
    }
    ++i;
  }
  spec.width = static_cast<std::size_t>(number(100'000'000));
  if (at(i) == ',' || at(i) == '_') spec.grouping = static_cast<char>(at(i++));
  if (at(i) == '.') {
    ++i;
    if (at(i) < '0' || at(i) > '9') fail("Format specifier missing precision");
    spec.precision = static_cast<int>(number(100'000'000));
  }
  if (i < text.size() && at(i) < 0x80) spec.type = static_cast<char>(at(i++));
  if (i < text.size()) fail("Invalid format specifier");
  return spec;
}

void write_padded(TextBuilder& out, const Spec& spec, TextView head, TextView body,
                  char default_align) {
  const char align = spec.align == 0 ? default_align : spec.align;
  const std::size_t n = head.size() + body.size();
  const std::size_t missing = spec.width > n ? spec.width - n : 0;
  const std::size_t before = align == '>' ? missing : align == '^' ? missing / 2 : 0;
  out.repeat(spec.fill, before);
  out.append(head);
  if (align == '=') out.repeat(spec.fill, missing);
  out.append(body);
  if (align != '=') out.repeat(spec.fill, missing - before);
}

void write_text(TextBuilder& out, const Spec& spec, TextView text) {
  if ((spec.type != 0 && spec.type != 's') || spec.align == '=' || spec.sign != '-' ||
      spec.alternate || spec.grouping != 0) {
    fail("this format specifier is not allowed for text");
  }
  if (spec.precision >= 0) text = text.substr(0, static_cast<std::size_t>(spec.precision));
  write_padded(out, spec, {}, text, '<');
}

// Digits with a mark after every `size` from the right.
std::string grouped(const std::string& digits, char mark, std::size_t size) {
  if (mark == 0) return digits;
  std::string out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % size == 0) out += mark;
    out += digits[i];
  }
  return out;
}

void write_number(TextBuilder& out, const Spec& spec, bool negative, std::string head,
                  const std::string& body, Unit mark) {
  std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  if (spec.grouping != 0 && spec.align == '=' && code_of(spec.fill) == '0') {
    fail("zeros before grouped digits are not supported");
  }
  write_padded(out, spec, ascii_text(sign + head, mark), ascii_text(body, mark), '>');
}

void write_whole(TextBuilder& out, const Spec& spec, const Value& value) {
  const std::int64_t number = value.as_int();
  if (spec.precision >= 0) fail("Precision not allowed in integer format specifier");
  if (spec.type == 'c') fail("the format type 'c' is not supported");
  const unsigned base = spec.type == 'b'                       ? 2
                        : spec.type == 'o'                     ? 8
                        : spec.type == 'x' || spec.type == 'X' ? 16
                                                               : 10;
  if (base == 10 && spec.type != 0 && spec.type != 'd' && spec.type != 'n') {
    fail("Unknown format code for a whole number");
  }
  if (spec.type == 'n' || (base != 10 && spec.grouping == ','))
    fail("this number format is not supported");
  std::uint64_t rest =
      number < 0 ? 0 - static_cast<std::uint64_t>(number) : static_cast<std::uint64_t>(number);
  // Not an array chosen and indexed at once: with -fsanitize=bounds GCC 12 loses the index.
  const std::string_view figures = spec.type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string digits;
  do {
    digits += figures[rest % base];
    rest /= base;
  } while (rest > 0);
  std::reverse(digits.begin(), digits.end());
  const std::string head = spec.alternate && base != 10 ? std::string("0") + spec.type : "";
  write_number(out, spec, number < 0, head, grouped(digits, spec.grouping, base == 10 ? 3 : 4),
               value.mark());
}

void write_real(TextBuilder& out, const Spec& spec, const Value& value) {
  double number = value.as_double();
  if (spec.precision > 1000) fail("a precision above 1000 is not supported");
  const bool negative = std::signbit(number) && !std::isnan(number);
  number = std::abs(number);
  std::string body;
  if (spec.type == 0 && spec.precision < 0) {
    body = float_text(number);
  } else if (spec.type == 0) {
    fail("a precision without a type in the format of a float is not supported");
  } else if (spec.type == '%') {
    body = float_digits(number * 100, 'f', spec.precision < 0 ? 6 : spec.precision, false) + "%";
  } else if (std::string_view("eEfFgG").find(spec.type) != std::string_view::npos) {
    body = float_digits(number, spec.type, spec.precision < 0 ? 6 : spec.precision, spec.alternate);
  } else {
    fail("Unknown format code for a float");
  }
  if (spec.grouping != 0) {
    const std::size_t end = std::min(body.find_first_not_of("0123456789"), body.size());
    body = grouped(body.substr(0, end), spec.grouping, 3) + body.substr(end);
  }
  write_number(out, spec, negative, "", body, value.mark());
}

}  // namespace

std::string float_digits(double number, char letter, int precision, bool alternate) {
  if (alternate) fail("'#' in the format of a float is not supported");
  const bool large = letter == 'E' || letter == 'F' || letter == 'G';
  std::string text;
  if (!std::isfinite(number)) {
    text = std::isnan(number) ? "nan" : number < 0 ? "-inf" : "inf";
  } else {
    const char small = static_cast<char>(letter | 0x20);
    const std::chars_format format = small == 'e'   ? std::chars_format::scientific
                                     : small == 'f' ? std::chars_format::fixed
                                                    : std::chars_format::general;
    if (small == 'g' && precision == 0) precision = 1;
    std::string buffer(static_cast<std::size_t>(precision) + 400, '\0');
    const auto end =
        std::to_chars(buffer.data(), buffer.data() + buffer.size(), number, format, precision);
    text.assign(buffer.data(), end.ptr);
  }
  if (large) {
    for (char& c : text) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
  }
  return text;
}

void format_value(Interpreter& interpreter, TextBuilder& out, const Value& value, TextView spec) {
  if (spec.empty()) return out.write(value);
  interpreter.budget().work(8 * spec.size());
  const Spec parsed = parse_spec(spec);
  if (value.is(Kind::kText)) {
    write_text(out, parsed, value.as_text());
  } else if (value.is_whole() &&
             std::string_view("eEfFgG%").find(parsed.type == 0 ? ' ' : parsed.type) ==
                 std::string_view::npos) {
    write_whole(out, parsed, value);
  } else if (value.is_number()) {
    write_real(out, parsed, value);
  } else {
    fail("unsupported format string passed to " + type_name(value) + ".__format__");
  }
}

Value brace_format(Interpreter& interpreter, const Value& format, const Arguments& arguments) {
  TextBuilder out(interpreter.budget());
  BraceFormatter(interpreter, arguments).run(format.as_text(), out, 2);
  return out.take();
}

}  // namespace specdec::chat
