// Filters about numbers, and what text says about them.
#include <charconv>
#include <cmath>
#include <limits>

#include "base/read_real.h"
#include "chat_template/builtins.h"
#include "chat_template/unicode.h"

namespace specdec::chat {
namespace {

constexpr double kTwo63 = 9223372036854775808.0;

// int(x) of a float; nothing for NaN and infinity.
std::optional<std::int64_t> whole_part(double real) {
  if (std::isnan(real) || std::isinf(real)) return std::nullopt;
  const double whole = std::trunc(real);
  if (whole >= kTwo63 || whole < -kTwo63) fail("a whole number does not fit into 64 bits");
  return static_cast<std::int64_t>(whole);
}

// The characters of a number: trimmed, digits of other scripts as ASCII, underscores between
// digits dropped. Nothing where it cannot be one.
std::optional<std::string> number_text(Interpreter& interpreter, TextView text) {
  interpreter.budget().work(12 * text.size());
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const Unit code = code_of(text[i]);
    const int digit = decimal_value(text[i]);
    if (digit >= 0) {
      out += static_cast<char>('0' + digit);
    } else if (code == '_') {
      const auto is_part = [](Unit unit) {
        return decimal_value(unit) >= 0 || (code_of(unit) < 0x80 && has_property(unit, kAlpha));
      };
      if (i == 0 || i + 1 == text.size() || !is_part(text[i - 1]) || !is_part(text[i + 1])) {
        return std::nullopt;
      }
    } else if (code < 0x80) {
      out += static_cast<char>(code);
    } else {
      return std::nullopt;
    }
  }
  return out;
}

// int(text, base); nothing for a ValueError.
std::optional<std::int64_t> parse_whole(Interpreter& interpreter, TextView text,
                                        std::int64_t base) {
  if (base != 0 && (base < 2 || base > 36)) {
    return std::nullopt;  // int() raises ValueError, which the filter catches
  }
  std::optional<std::string> cleaned = number_text(interpreter, text);
  if (!cleaned) return std::nullopt;
  std::string_view digits = *cleaned;
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.remove_prefix(1);
  int real_base = static_cast<int>(base);
  if (digits.size() > 2 && digits[0] == '0') {
    const char letter = static_cast<char>(digits[1] | 0x20);
    const int named = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (named != 0 && (base == 0 || base == named)) {
      real_base = named;
      digits.remove_prefix(2);
    }
  }
  if (base == 0 && real_base == 0) {
    if (digits.size() > 1 && digits[0] == '0' &&
        digits.find_first_not_of('0') != std::string_view::npos) {
      return std::nullopt;  // 010 has no base
    }
    real_base = 10;
  }
  std::uint64_t value = 0;
  const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), value, real_base);
  if (digits.empty() || end.ptr != digits.data() + digits.size() ||
      end.ec == std::errc::invalid_argument) {
    return std::nullopt;
  }
  const std::uint64_t most = std::uint64_t{1} << 63;
  if (end.ec != std::errc() || value > most || (value == most && !negative)) {
    fail("a whole number does not fit into 64 bits");
  }
  return negative ? static_cast<std::int64_t>(0 - value) : static_cast<std::int64_t>(value);
}

// float(text); nothing for a ValueError.
std::optional<double> parse_real(Interpreter& interpreter, TextView text) {
  std::optional<std::string> cleaned = number_text(interpreter, text);
  if (!cleaned) return std::nullopt;
  std::string_view digits = *cleaned;
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.remove_prefix(1);
  std::string word;
  for (const char c : digits) word += c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
  double real = 0;
  if (word == "inf" || word == "infinity") {
    real = std::numeric_limits<double>::infinity();
  } else if (word == "nan") {
    real = std::numeric_limits<double>::quiet_NaN();
  } else {
    if (word.empty() || !((word[0] >= '0' && word[0] <= '9') || word[0] == '.')) {
      return std::nullopt;
    }
    const auto end = read_real(word.data(), word.data() + word.size(), real);
    if (end.ptr != word.data() + word.size() || end.ec == std::errc::invalid_argument) {
      return std::nullopt;
    }
    if (end.ec == std::errc::result_out_of_range) {
      // Too large, or too small: the exponent's sign tells, and without one it is a long number.
      const std::size_t e = word.find('e');
      const bool small = (e != std::string::npos && word.find('-', e) != std::string::npos) ||
                         word.starts_with("0.") || word.starts_with('.');
      real = small ? 0 : std::numeric_limits<double>::infinity();
    }
  }
  return negative ? -real : real;
}

bool from_caller(const Value& value) {
  if (!value.is(Kind::kText)) return value.callers();
  for (const Unit unit : value.as_text()) {
    if (is_callers(unit)) return true;
  }
  return false;
}

Value to_int(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("int", arguments, "value | default base");
  const Value& value = bound[0];
  require_defined(value);
  const bool callers = from_caller(value);
  if (value.is_whole()) return Value::integer(value.as_int(), callers);
  std::optional<std::int64_t> whole;
  if (value.is(Kind::kFloat)) {
    if (std::isinf(value.as_double())) fail("cannot convert float infinity to integer");
    whole = whole_part(value.as_double());
  } else if (value.is(Kind::kText)) {
    whole = parse_whole(interpreter, value.as_text(), bound.integer(2, 10));
    if (!whole) {
      if (const std::optional<double> real = parse_real(interpreter, value.as_text())) {
        whole = whole_part(*real);
      }
    }
  }
  if (whole) return Value::integer(*whole, callers);
  return bound.get(1) != nullptr ? bound[1] : Value::integer(0);
}

Value to_float(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("float", arguments, "value | default");
  const Value& value = bound[0];
  require_defined(value);
  const bool callers = from_caller(value);
  if (value.is_number()) return Value::real(value.as_double(), callers);
  if (value.is(Kind::kText)) {
    if (const std::optional<double> real = parse_real(interpreter, value.as_text())) {
      return Value::real(*real, callers);
    }
  }
  return bound.get(1) != nullptr ? bound[1] : Value::real(0);
}

Value absolute(Interpreter&, Arguments& arguments) {
  const Bound bound("abs", arguments, "x");
  require_defined(bound[0]);
  if (bound[0].is(Kind::kFloat)) {
    return Value::real(std::abs(bound[0].as_double()), bound[0].callers());
  }
  if (!bound[0].is_whole()) fail("bad operand type for abs(): '" + type_name(bound[0]) + "'");
  return bound[0].as_int() < 0 ? unary("-", bound[0]) : unary("+", bound[0]);
}

// As Python's round(x, n): the nearest decimal, halves as the binary value has them.
double round_to(double real, std::int64_t n_digits) {
  if (std::isnan(real) || std::isinf(real) || n_digits > 323) return real;
  if (n_digits < -308) return 0.0 * real;
  if (n_digits >= 0) {
    double rounded = 0;
    const std::string digits = float_digits(real, 'f', static_cast<int>(n_digits), false);
    read_real(digits.data(), digits.data() + digits.size(), rounded);
    return rounded;
  }
  const double power = std::pow(10.0, static_cast<double>(-n_digits));
  double rounded = std::round(real / power);
  if (std::abs(real / power - rounded) == 0.5) rounded = 2.0 * std::round(real / power / 2.0);
  return rounded * power;
}

Value round(Interpreter&, Arguments& arguments) {
  const Bound bound("round", arguments, "value | precision method");
  const Value& value = bound[0];
  const std::int64_t precision = bound.integer(1, 0);
  const std::string method =
      bound.get(2) == nullptr ? "common" : to_bytes(bound.text(2).substr(0, 40));
  if (method != "common" && method != "ceil" && method != "floor") {
    fail("method must be common, ceil or floor");
  }
  require_defined(value);
  if (!value.is_number()) fail("type " + type_name(value) + " doesn't define __round__ method");
  if (method == "common") {
    if (value.is_whole()) {
      if (precision < 0) fail("rounding whole numbers to tens is not supported");
      return Value::integer(value.as_int(), value.callers());
    }
    return Value::real(round_to(value.as_double(), precision), value.callers());
  }
  if (precision < 0 || precision > 300) fail("this precision is not supported with ceil and floor");
  const double power = std::pow(10.0, static_cast<double>(precision));
  const double scaled = value.as_double() * power;
  const double rounded = method == "ceil" ? std::ceil(scaled) : std::floor(scaled);
  return Value::real(rounded / power, value.callers());
}

Value filesizeformat(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("filesizeformat", arguments, "value | binary");
  Arguments inner;
  inner.positional = {bound[0], Value::none()};
  const Value number = to_float(interpreter, inner);
  if (number.is(Kind::kNone)) fail("could not convert this " + type_name(bound[0]) + " to float");
  const double bytes = number.as_double();
  const bool binary_units = bound.flag(1, false);
  const double base = binary_units ? 1024 : 1000;
  std::string out;
  if (std::isnan(bytes)) fail("cannot convert float NaN to integer");
  if (bytes == 1) {
    out = "1 Byte";
  } else if (bytes < base) {
    out = std::to_string(whole_part(bytes).value_or(0)) + " Bytes";
  } else {
    constexpr std::string_view kLetters = "kMGTPEZY";
    double unit = base;
    char letter = 'k';
    for (const char c : kLetters) {
      letter = c;
      unit *= base;
      if (bytes < unit) break;
    }
    if (binary_units && letter == 'k') letter = 'K';
    out = float_digits(base * bytes / unit, 'f', 1, false) + " " + letter +
          (binary_units ? "iB" : "B");
  }
  return Value::text(interpreter.budget(), ascii_text(out, number.mark()));
}

constexpr NamedBuiltin kTable[] = {
    {"abs", absolute}, {"filesizeformat", filesizeformat}, {"float", to_float}, {"int", to_int},
    {"round", round},
};

}  // namespace

const std::span<const NamedBuiltin> kNumberFilters = kTable;

}  // namespace specdec::chat
