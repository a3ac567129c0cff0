// map, select, reject and their attr forms: filters that take other filters and tests by name.
#include "chat_template/builtins.h"

namespace specdec::chat {
namespace {

std::string name_of(const Value& value, const char* what) {
  require_defined(value);
  if (!value.is(Kind::kText)) fail(std::string(what) + " takes a name, not " + type_name(value));
  return to_bytes(value.as_text().substr(0, 200));
}

Value map_attribute(Interpreter& interpreter, Arguments& arguments) {
  const Value* path = nullptr;
  const Value* otherwise = nullptr;
  for (const auto& [name, value] : arguments.named) {
    if (name == "attribute") {
      path = &value;
    } else if (name == "default") {
      otherwise = value.is(Kind::kNone) ? nullptr : &value;
    } else {
      fail("Unexpected keyword argument '" + printable(name) + "'");
    }
  }
  Values mapped;
  for (const Value& item : iterate(interpreter.budget(), arguments.positional[0])) {
    mapped.push_back(interpreter.attribute_path(item, *path, otherwise));
  }
  return Value::generator(interpreter.budget(), std::move(mapped));
}

Value map(Interpreter& interpreter, Arguments& arguments) {
  if (arguments.positional.empty()) fail("map() needs a value");
  if (!truthy(arguments.positional[0])) return Value::generator(interpreter.budget(), {});
  bool by_attribute = false;
  for (const auto& [name, value] : arguments.named) by_attribute |= name == "attribute";
  if (arguments.positional.size() == 1) {
    if (!by_attribute) fail("map requires a filter argument");
    return map_attribute(interpreter, arguments);
  }
  const std::string filter = name_of(arguments.positional[1], "map()");
  Values mapped;
  for (const Value& item : iterate(interpreter.budget(), arguments.positional[0])) {
    Arguments inner;
    inner.positional.push_back(item);
    inner.positional.insert(inner.positional.end(), arguments.positional.begin() + 2,
                            arguments.positional.end());
    inner.named = arguments.named;
    mapped.push_back(interpreter.call_filter(filter, inner));
  }
  return Value::generator(interpreter.budget(), std::move(mapped));
}

Value select_any(Interpreter& interpreter, Arguments& arguments, const char* what, bool wanted,
                 bool by_attribute) {
  if (arguments.positional.empty()) fail(std::string(what) + "() needs a value");
  Budget& budget = interpreter.budget();
  if (!truthy(arguments.positional[0])) return Value::generator(budget, {});
  const std::size_t at = by_attribute ? 2 : 1;  // of the test's name
  if (by_attribute && arguments.positional.size() < 2) {
    fail("Missing parameter for attribute name");
  }
  std::string test;
  if (arguments.positional.size() > at) {
    test = name_of(arguments.positional[at], what);
  }
  Values kept;
  for (Value& item : iterate(budget, arguments.positional[0])) {
    budget.step();
    Value tested = by_attribute ? interpreter.attribute_path(item, arguments.positional[1]) : item;
    bool holds = false;
    if (test.empty()) {
      holds = truthy(tested);
    } else {
      Arguments inner;
      inner.positional.push_back(std::move(tested));
      inner.positional.insert(inner.positional.end(),
                              arguments.positional.begin() + static_cast<std::ptrdiff_t>(at + 1),
                              arguments.positional.end());
      inner.named = arguments.named;
      holds = interpreter.call_test(test, inner);
    }
    if (holds == wanted) kept.push_back(std::move(item));
  }
  return Value::generator(budget, std::move(kept));
}

Value select(Interpreter& interpreter, Arguments& arguments) {
  return select_any(interpreter, arguments, "select", true, false);
}
Value reject(Interpreter& interpreter, Arguments& arguments) {
  return select_any(interpreter, arguments, "reject", false, false);
}
Value selectattr(Interpreter& interpreter, Arguments& arguments) {
  return select_any(interpreter, arguments, "selectattr", true, true);
}
Value rejectattr(Interpreter& interpreter, Arguments& arguments) {
  return select_any(interpreter, arguments, "rejectattr", false, true);
}

constexpr NamedBuiltin kTable[] = {
    {"map", map},       {"reject", reject},         {"rejectattr", rejectattr},
    {"select", select}, {"selectattr", selectattr},
};

}  // namespace

const std::span<const NamedBuiltin> kSelectFilters = kTable;

}  // namespace specdec::chat
