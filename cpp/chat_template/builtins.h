// The functions, filters, tests and methods that templates know by name.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "chat_template/callable.h"
#include "chat_template/interpreter.h"

namespace specdec::chat {

using Builtin = Value (*)(Interpreter& interpreter, Arguments& arguments);

struct NamedBuiltin {
  std::string_view name;
  Builtin run;
};

// Null: there is none of that name. The first argument of filters and tests is the value itself.
[[nodiscard]] Builtin find_filter(std::string_view name);
[[nodiscard]] Builtin find_test(std::string_view name);
[[nodiscard]] std::span<const NamedBuiltin> global_functions();
// Of jinja, but not of this interpreter.
[[nodiscard]] bool is_unsupported_filter(std::string_view name);

// object.name where that is a method or another attribute of Python's type; nothing where the type
// has no such attribute. Fails for what exists and is not supported.
[[nodiscard]] std::optional<Value> find_attribute(Interpreter& interpreter, const Value& object,
                                                  std::string_view name);

// The tables, one per file.
extern const std::span<const NamedBuiltin> kTextFilters, kListFilters, kSelectFilters,
    kNumberFilters, kTextMethods, kTextTrimMethods, kTextFormMethods;

// a op b for + - * / // % **; -a and +a.
[[nodiscard]] Value binary(Interpreter& interpreter, std::string_view op, const Value& a,
                           const Value& b);
[[nodiscard]] Value unary(std::string_view op, const Value& a);

// "..." % values
[[nodiscard]] Value percent_format(Interpreter& interpreter, const Value& format,
                                   const Value& values);
// "...".format(...)
[[nodiscard]] Value brace_format(Interpreter& interpreter, const Value& format,
                                 const Arguments& arguments);
// format(value, spec)
void format_value(Interpreter& interpreter, TextBuilder& out, const Value& value, TextView spec);
// Digits of a float as in "%.2f"; `letter` is one of eEfFgG.
[[nodiscard]] std::string float_digits(double number, char letter, int precision, bool alternate);

[[nodiscard]] Value to_json(Interpreter& interpreter, const Value& value, const Arguments& rest);
[[nodiscard]] Value strftime_now(Interpreter& interpreter, Arguments& arguments);
[[nodiscard]] Value html_escaped(Interpreter& interpreter, const Value& value);

// text[start:stop:step] and the same for lists.
[[nodiscard]] Value slice(Interpreter& interpreter, const Value& object, const Value& start,
                          const Value& stop, const Value& step);

}  // namespace specdec::chat
