// + - * / // % ** and the signs.
#include <cmath>

#include "chat_template/builtins.h"

namespace specdec::chat {
namespace {

constexpr double kExact = 9007199254740992.0;  // 2**53

[[noreturn]] void fail_operands(std::string_view op, const Value& a, const Value& b) {
  require_defined(a);
  require_defined(b);
  fail("unsupported operand type(s) for " + std::string(op) + ": '" + type_name(a) + "' and '" +
       type_name(b) + "'");
}

[[noreturn]] void fail_overflow() { fail("a whole number does not fit into 64 bits"); }

std::int64_t whole_power(std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) fail_overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) fail_overflow();
  }
  return result;
}

// Towards minus infinity, as Python divides.
std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  if (b == 0) fail("integer division or modulo by zero");
  if (b == -1) {
    std::int64_t result = 0;
    if (__builtin_sub_overflow(std::int64_t{0}, a, &result)) fail_overflow();
    return result;
  }
  const std::int64_t quotient = a / b;
  return a % b != 0 && (a % b < 0) != (b < 0) ? quotient - 1 : quotient;
}

std::int64_t floor_modulo(std::int64_t a, std::int64_t b) {
  if (b == 0) fail("integer modulo by zero");
  if (b == -1) return 0;
  const std::int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

double real_modulo(double a, double b) {
  if (b == 0) fail("float modulo by zero");
  double rest = std::fmod(a, b);
  if (rest != 0) {
    if ((b < 0) != (rest < 0)) rest += b;
  } else {
    rest = std::copysign(0.0, b);
  }
  return rest;
}

double real_floor_divide(double a, double b) {
  if (b == 0) fail("float floor division by zero");
  double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0 && (b < 0) != (rest < 0)) quotient -= 1.0;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double whole = std::floor(quotient);
  return quotient - whole > 0.5 ? whole + 1.0 : whole;
}

double real_power(double base, double exponent) {
  if (base == 0 && exponent < 0) fail("0.0 cannot be raised to a negative power");
  if (base < 0 && std::isfinite(base) && std::isfinite(exponent) &&
      exponent != std::floor(exponent)) {
    fail("a power that is a complex number is not supported");
  }
  const double result = std::pow(base, exponent);
  if (std::isinf(result) && std::isfinite(base) && std::isfinite(exponent)) {
    fail("(34, 'Numerical result out of range')");
  }
  return result;
}

double divide(const Value& a, const Value& b) {
  if (b.as_double() == 0) fail("division by zero");
  if (a.is_whole() && b.is_whole() &&
      (std::abs(a.as_double()) > kExact || std::abs(b.as_double()) > kExact)) {
    fail("a division of whole numbers above 2**53 is not supported");
  }
  return a.as_double() / b.as_double();
}

Value arithmetic(std::string_view op, const Value& a, const Value& b) {
  const bool callers = a.callers() || b.callers();
  if (op == "/") return Value::real(divide(a, b), callers);
  if (a.is_whole() && b.is_whole()) {
    const std::int64_t x = a.as_int(), y = b.as_int();
    std::int64_t result = 0;
    bool overflow = false;
    if (op == "+") {
      overflow = __builtin_add_overflow(x, y, &result);
    } else if (op == "-") {
      overflow = __builtin_sub_overflow(x, y, &result);
    } else if (op == "*") {
      overflow = __builtin_mul_overflow(x, y, &result);
    } else if (op == "//") {
      result = floor_divide(x, y);
    } else if (op == "%") {
      result = floor_modulo(x, y);
    } else if (y < 0) {
      return Value::real(real_power(a.as_double(), b.as_double()), callers);
    } else {
      result = whole_power(x, y);
    }
    if (overflow) fail_overflow();
    return Value::integer(result, callers);
  }
  const double x = a.as_double(), y = b.as_double();
  if (op == "+") return Value::real(x + y, callers);
  if (op == "-") return Value::real(x - y, callers);
  if (op == "*") return Value::real(x * y, callers);
  if (op == "//") return Value::real(real_floor_divide(x, y), callers);
  if (op == "%") return Value::real(real_modulo(x, y), callers);
  return Value::real(real_power(x, y), callers);
}

Value joined(Interpreter& interpreter, const Value& a, const Value& b) {
  Budget& budget = interpreter.budget();
  if (a.is(Kind::kText)) {
    TextBuilder out(budget);
    if (a.is_markup() || b.is_markup()) {
      out.append(html_escaped(interpreter, a).as_text());
      out.append(html_escaped(interpreter, b).as_text());
      return out.take(true);
    }
    out.append(a.as_text());
    out.append(b.as_text());
    return out.take();
  }
  const Values& left = a.as_list().items;
  const Values& right = b.as_list().items;
  const std::size_t n = left.size() + right.size();
  budget.work(16 * n);
  budget.hold(n * sizeof(Value));
  budget.release(n * sizeof(Value));
  Values items(left);
  items.insert(items.end(), right.begin(), right.end());
  return a.is(Kind::kList) ? Value::list(budget, std::move(items))
                           : Value::tuple(budget, std::move(items));
}

Value repeated(Interpreter& interpreter, const Value& sequence, const Value& times) {
  Budget& budget = interpreter.budget();
  const auto n = static_cast<std::uint64_t>(std::max<std::int64_t>(times.as_int(), 0));
  const auto size = static_cast<std::uint64_t>(length_of(sequence).value());
  std::uint64_t total = 0;
  if (__builtin_mul_overflow(n, size, &total)) total = ~std::uint64_t{0};
  if (sequence.is(Kind::kText)) {
    TextBuilder out(budget);
    budget.work(total);
    out.expect(total);
    for (std::uint64_t i = 0; size > 0 && i < n; ++i) out.append(sequence.as_text());
    return out.take(sequence.is_markup());
  }
  budget.work(total > ~std::uint64_t{0} / 16 ? total : 16 * total);
  budget.hold(total * sizeof(Value));
  budget.release(total * sizeof(Value));
  Values items;
  items.reserve(total);
  const Values& from = sequence.as_list().items;
  for (std::uint64_t i = 0; size > 0 && i < n; ++i) {
    items.insert(items.end(), from.begin(), from.end());
  }
  return sequence.is(Kind::kList) ? Value::list(budget, std::move(items))
                                  : Value::tuple(budget, std::move(items));
}

}  // namespace

Value binary(Interpreter& interpreter, std::string_view op, const Value& a, const Value& b) {
  interpreter.budget().step();
  if (a.is_number() && b.is_number()) return arithmetic(op, a, b);
  require_defined(a);
  if (op == "+") {
    if ((a.is(Kind::kText) && b.is(Kind::kText)) || (a.is(Kind::kList) && b.is(Kind::kList)) ||
        (a.is(Kind::kTuple) && b.is(Kind::kTuple))) {
      return joined(interpreter, a, b);
    }
    if (a.is(Kind::kText)) {
      require_defined(b);
      fail("can only concatenate str (not \"" + type_name(b) + "\") to str");
    }
  } else if (op == "*") {
    const auto repeats = [](const Value& v) { return v.is(Kind::kText) || v.is_sequence(); };
    if (repeats(a) && b.is_whole()) return repeated(interpreter, a, b);
    if (repeats(b) && a.is_whole()) return repeated(interpreter, b, a);
  } else if (op == "%" && a.is(Kind::kText)) {
    return percent_format(interpreter, a, b);
  }
  fail_operands(op, a, b);
}

Value unary(std::string_view op, const Value& a) {
  require_defined(a);
  if (!a.is_number())
    fail("bad operand type for unary " + std::string(op) + ": '" + type_name(a) + "'");
  if (a.is(Kind::kFloat)) {
    return Value::real(op == "-" ? -a.as_double() : a.as_double(), a.callers());
  }
  if (op == "+") return Value::integer(a.as_int(), a.callers());
  std::int64_t result = 0;
  if (__builtin_sub_overflow(std::int64_t{0}, a.as_int(), &result)) fail_overflow();
  return Value::integer(result, a.callers());
}

}  // namespace specdec::chat
