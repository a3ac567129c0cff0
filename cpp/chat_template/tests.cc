// Tests: what stands behind `is`.
#include "chat_template/builtins.h"
#include "chat_template/compare.h"

namespace specdec::chat {
namespace {

template <typename Check>
Value check_one(Arguments& arguments, const char* name, Check check) {
  const Bound bound(name, arguments, "value");
  return Value::boolean(check(bound[0]));
}

template <bool kWanted>
Value defined(Interpreter&, Arguments& arguments) {
  return check_one(arguments, "defined",
                   [](const Value& v) { return v.is(Kind::kUndefined) != kWanted; });
}

template <Kind kKind>
Value has_kind(Interpreter&, Arguments& arguments) {
  return check_one(arguments, "is", [](const Value& v) { return v.is(kKind); });
}

template <bool kWanted>
Value is_bool(Interpreter&, Arguments& arguments) {
  return check_one(arguments, "is",
                   [](const Value& v) { return v.is(Kind::kBool) && v.as_bool() == kWanted; });
}

Value number(Interpreter&, Arguments& arguments) {
  return check_one(arguments, "number", [](const Value& v) { return v.is_number(); });
}

Value sequence(Interpreter&, Arguments& arguments) {
  return check_one(arguments, "sequence", [](const Value& v) {
    return v.is_sequence() || v.is(Kind::kText) || v.is(Kind::kDict) || v.is(Kind::kRange) ||
           v.is(Kind::kUndefined);
  });
}

Value iterable(Interpreter&, Arguments& arguments) {
  return check_one(arguments, "iterable", [](const Value& v) { return is_iterable(v); });
}

Value callable(Interpreter&, Arguments& arguments) {
  return check_one(arguments, "callable", [](const Value& v) {
    return v.is(Kind::kCallable) || v.is(Kind::kUndefined) ||
           (v.is(Kind::kObject) && v.as_object().is_callable());
  });
}

Value escaped(Interpreter&, Arguments& arguments) {
  return check_one(arguments, "escaped", [](const Value& v) { return v.is_markup(); });
}

template <std::int64_t kRest>
Value rest_of_two(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("is", arguments, "value");
  return Value::boolean(equal(interpreter.budget(),
                              binary(interpreter, "%", bound[0], Value::integer(2)),
                              Value::integer(kRest)));
}

Value divisible_by(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("divisibleby", arguments, "value num");
  return Value::boolean(
      equal(interpreter.budget(), binary(interpreter, "%", bound[0], bound[1]), Value::integer(0)));
}

Value case_of(Interpreter& interpreter, Arguments& arguments, const char* name,
              const char* method) {
  const Bound bound(name, arguments, "value");
  const Value text = Value::text(interpreter.budget(), text_of(interpreter.budget(), bound[0]));
  Arguments none;
  return interpreter.call(find_attribute(interpreter, text, method).value(), none);
}
Value lower_case(Interpreter& interpreter, Arguments& arguments) {
  return case_of(interpreter, arguments, "lower", "islower");
}
Value upper_case(Interpreter& interpreter, Arguments& arguments) {
  return case_of(interpreter, arguments, "upper", "isupper");
}

Value in(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("in", arguments, "value seq");
  return Value::boolean(contains(interpreter.budget(), bound[1], bound[0]));
}

// Identity, where it can be told: of constants and of objects.
Value same_as(Interpreter&, Arguments& arguments) {
  const Bound bound("sameas", arguments, "value other");
  const Value& a = bound[0];
  const Value& b = bound[1];
  if (a.kind() != b.kind()) return Value::boolean(false);
  if (a.is(Kind::kNone)) return Value::boolean(true);
  if (a.is(Kind::kBool)) return Value::boolean(a.as_bool() == b.as_bool());
  if (a.is(Kind::kObject) || a.is(Kind::kCallable) || a.is(Kind::kList) || a.is(Kind::kDict)) {
    return Value::boolean(a.heap().get() == b.heap().get());
  }
  fail("'sameas' of two values of type " + type_name(a) + " is not supported: use ==");
}

enum class Order { kEqual, kUnequal, kLess, kLessEqual, kGreater, kGreaterEqual };

template <Order kOrder>
Value compared(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("is", arguments, "value other");
  Budget& budget = interpreter.budget();
  const Value& a = bound[0];
  const Value& b = bound[1];
  switch (kOrder) {
    case Order::kEqual:
      return Value::boolean(equal(budget, a, b));
    case Order::kUnequal:
      return Value::boolean(!equal(budget, a, b));
    case Order::kLess:
      return Value::boolean(less(budget, a, b, "<"));
    case Order::kLessEqual:
      return Value::boolean(less_equal(budget, a, b, "<="));
    case Order::kGreater:
      return Value::boolean(less(budget, b, a, ">"));
    case Order::kGreaterEqual:
      return Value::boolean(less_equal(budget, b, a, ">="));
  }
  return {};
}

Value is_filter(Interpreter&, Arguments& arguments) {
  return check_one(arguments, "filter", [](const Value& v) {
    if (!v.is(Kind::kText)) return false;
    const std::string name = to_bytes(v.as_text().substr(0, 100));
    return find_filter(name) != nullptr || is_unsupported_filter(name);
  });
}

Value is_test(Interpreter&, Arguments& arguments) {
  return check_one(arguments, "test", [](const Value& v) {
    return v.is(Kind::kText) && find_test(to_bytes(v.as_text().substr(0, 100))) != nullptr;
  });
}

constexpr NamedBuiltin kTable[] = {
    {"!=", compared<Order::kUnequal>},
    {"<", compared<Order::kLess>},
    {"<=", compared<Order::kLessEqual>},
    {"==", compared<Order::kEqual>},
    {">", compared<Order::kGreater>},
    {">=", compared<Order::kGreaterEqual>},
    {"boolean", has_kind<Kind::kBool>},
    {"callable", callable},
    {"defined", defined<true>},
    {"divisibleby", divisible_by},
    {"eq", compared<Order::kEqual>},
    {"equalto", compared<Order::kEqual>},
    {"escaped", escaped},
    {"even", rest_of_two<0>},
    {"false", is_bool<false>},
    {"filter", is_filter},
    {"float", has_kind<Kind::kFloat>},
    {"ge", compared<Order::kGreaterEqual>},
    {"greaterthan", compared<Order::kGreater>},
    {"gt", compared<Order::kGreater>},
    {"in", in},
    {"integer", has_kind<Kind::kInt>},
    {"iterable", iterable},
    {"le", compared<Order::kLessEqual>},
    {"lessthan", compared<Order::kLess>},
    {"lower", lower_case},
    {"lt", compared<Order::kLess>},
    {"mapping", has_kind<Kind::kDict>},
    {"ne", compared<Order::kUnequal>},
    {"none", has_kind<Kind::kNone>},
    {"number", number},
    {"odd", rest_of_two<1>},
    {"sameas", same_as},
    {"sequence", sequence},
    {"string", has_kind<Kind::kText>},
    {"test", is_test},
    {"true", is_bool<true>},
    {"undefined", defined<false>},
    {"upper", upper_case},
};

Builtin find_in(std::span<const NamedBuiltin> table, std::string_view name) {
  for (const NamedBuiltin& entry : table) {
    if (entry.name == name) return entry.run;
  }
  return nullptr;
}

}  // namespace

Builtin find_test(std::string_view name) { return find_in(kTable, name); }

Builtin find_filter(std::string_view name) {
  for (const auto table : {kTextFilters, kListFilters, kSelectFilters, kNumberFilters}) {
    if (const Builtin found = find_in(table, name)) return found;
  }
  return nullptr;
}

bool is_unsupported_filter(std::string_view name) {
  for (const std::string_view other :
       {"pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr"}) {
    if (name == other) return true;
  }
  return false;
}

}  // namespace specdec::chat
