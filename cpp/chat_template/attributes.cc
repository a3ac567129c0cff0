// object.name and object[index].
#include <algorithm>
#include <iterator>

#include "chat_template/builtins.h"
#include "chat_template/compare.h"
#include "chat_template/objects.h"

namespace specdec::chat {
namespace {

Builtin find_in(std::span<const NamedBuiltin> table, std::string_view name) {
  for (const NamedBuiltin& entry : table) {
    if (entry.name == name) return entry.run;
  }
  return nullptr;
}

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Value pair_of(Budget& budget, const DictData::Entry& entry) {
  return Value::tuple(budget, {entry.key, entry.value});
}

Value dict_get(Interpreter&, Arguments& arguments) {
  const Bound bound("get", arguments, "self key | default");
  const Value* found = bound[0].as_dict().find(bound[1]);
  if (found != nullptr) return *found;
  return bound.get(2) != nullptr ? bound[2] : Value::none();
}

Value dict_keys(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("keys", arguments, "self");
  return Value::view(interpreter.budget(), iterate(interpreter.budget(), bound[0]), "dict_keys");
}

Value dict_values(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("values", arguments, "self");
  Values items;
  for (const DictData::Entry& entry : bound[0].as_dict().entries) {
    interpreter.budget().work(16);
    items.push_back(entry.value);
  }
  return Value::view(interpreter.budget(), std::move(items), "dict_values");
}

Value dict_items(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("items", arguments, "self");
  Values items;
  for (const DictData::Entry& entry : bound[0].as_dict().entries) {
    interpreter.budget().step();
    items.push_back(pair_of(interpreter.budget(), entry));
  }
  return Value::view(interpreter.budget(), std::move(items), "dict_items");
}

Value copy(Interpreter&, Arguments& arguments) {
  const Bound bound("copy", arguments, "self");
  return bound[0];  // what is never changed needs no copy
}

Value list_count(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("count", arguments, "self value");
  std::int64_t n = 0;
  for (const Value& item : iterate(interpreter.budget(), bound[0])) {
    n += equal(interpreter.budget(), item, bound[1]) ? 1 : 0;
  }
  return Value::integer(n);
}

Value list_index(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("index", arguments, "self value | start stop");
  const Values items = iterate(interpreter.budget(), bound[0]);
  const auto n = static_cast<std::int64_t>(items.size());
  const auto clamp = [n](std::int64_t i) {
    return std::clamp<std::int64_t>(i < 0 ? i + n : i, 0, n);
  };
  const std::int64_t stop = clamp(bound.integer(3, n));
  for (std::int64_t i = clamp(bound.integer(2, 0)); i < stop; ++i) {
    if (equal(interpreter.budget(), items[static_cast<std::size_t>(i)], bound[1])) {
      return Value::integer(i);
    }
  }
  fail("the value is not in the list");
}

Value is_integer(Interpreter&, Arguments& arguments) {
  const Bound bound("is_integer", arguments, "self");
  const double real = bound[0].as_double();
  return Value::boolean(real - real == 0 &&
                        real == static_cast<double>(static_cast<long double>(real)) &&
                        real == __builtin_floor(real));
}

constexpr NamedBuiltin kDictMethods[] = {
    {"copy", copy},      {"get", dict_get},       {"items", dict_items},
    {"keys", dict_keys}, {"values", dict_values},
};
constexpr NamedBuiltin kListMethods[] = {
    {"copy", copy}, {"count", list_count}, {"index", list_index}};
constexpr NamedBuiltin kTupleMethods[] = {{"count", list_count}, {"index", list_index}};
constexpr NamedBuiltin kFloatMethods[] = {{"is_integer", is_integer}};

std::span<const NamedBuiltin> methods_of(Kind kind) {
  switch (kind) {
    case Kind::kDict:
      return kDictMethods;
    case Kind::kList:
      return kListMethods;
    case Kind::kTuple:
    case Kind::kRange:
      return kTupleMethods;
    case Kind::kFloat:
      return kFloatMethods;
    default:
      return {};
  }
}

// What would change a list or dict; jinja's sandbox hides it.
bool changes(Kind kind, std::string_view name) {
  if (kind == Kind::kList) {
    return is_one_of(name,
                     {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"});
  }
  return kind == Kind::kDict &&
         is_one_of(name, {"clear", "pop", "popitem", "setdefault", "update"});
}

bool is_unsupported_attribute(Kind kind, std::string_view name) {
  switch (kind) {
    case Kind::kText:
      return is_one_of(name, {"casefold", "encode", "format_map", "maketrans", "translate"});
    case Kind::kBool:
    case Kind::kInt:
      return is_one_of(name,
                       {"as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator",
                        "from_bytes", "imag", "is_integer", "numerator", "real", "to_bytes"});
    case Kind::kFloat:
      return is_one_of(name, {"as_integer_ratio", "conjugate", "fromhex", "hex", "imag", "real"});
    case Kind::kDict:
      return name == "fromkeys";
    case Kind::kView:
      return is_one_of(name, {"isdisjoint", "mapping"});
    case Kind::kGenerator:
      return is_one_of(name, {"close", "send", "throw", "gi_code", "gi_frame", "gi_running",
                              "gi_suspended", "gi_yieldfrom"});
    case Kind::kRange:
      return is_one_of(name, {"start", "step", "stop"});
    case Kind::kCallable:
      return is_one_of(name, {"name", "arguments", "catch_kwargs", "catch_varargs", "caller"});
    default:
      return false;
  }
}

Value unsafe(Interpreter& interpreter, const Value& object, std::string_view name) {
  return Value::undefined(interpreter.budget(), "access to attribute '" + printable(name) +
                                                    "' of '" + type_name(object) +
                                                    "' object is unsafe.");
}

// object[index]; nothing where Python raises IndexError, KeyError or TypeError.
std::optional<Value> item(Interpreter& interpreter, const Value& object, const Value& index) {
  Budget& budget = interpreter.budget();
  require_defined(object);
  if (object.is(Kind::kDict)) {
    if (!is_hashable(budget, index)) return std::nullopt;
    const Value* found = object.as_dict().find(index);
    if (found != nullptr) return *found;
    return std::nullopt;
  }
  if (!index.is_whole()) return std::nullopt;
  const bool has_items = object.is_sequence() || object.is(Kind::kText) || object.is(Kind::kRange);
  if (!has_items) return std::nullopt;
  const std::int64_t n = length_of(object).value();
  std::int64_t i = index.as_int();
  if (i < 0) i += n;
  if (i < 0 || i >= n) return std::nullopt;
  const auto at = static_cast<std::size_t>(i);
  if (object.is(Kind::kText)) {
    return Value::text(budget, Text(1, object.as_text()[at]), object.is_markup());
  }
  if (object.is(Kind::kRange)) {
    return Value::integer(object.as_list().start + i * object.as_list().step);
  }
  return object.as_list().items[at];
}

}  // namespace

std::optional<Value> find_attribute(Interpreter& interpreter, const Value& object,
                                    std::string_view name) {
  interpreter.budget().work(60);
  if (name.size() > 4 && name.starts_with("__") && name.ends_with("__")) {
    return unsafe(interpreter, object, name);
  }
  if (object.is(Kind::kObject)) return object.as_object().attribute(interpreter, name);
  Builtin method = nullptr;
  if (object.is(Kind::kText)) {
    method = find_in(kTextMethods, name);
    if (method == nullptr) method = find_in(kTextTrimMethods, name);
    if (method == nullptr) method = find_in(kTextFormMethods, name);
  } else {
    method = find_in(methods_of(object.kind()), name);
  }
  if (method != nullptr) return make_method(interpreter.budget(), object, method);
  if (changes(object.kind(), name)) return unsafe(interpreter, object, name);
  if (is_unsupported_attribute(object.kind(), name)) {
    fail("the attribute '" + std::string(name) + "' of '" + type_name(object) +
         "' is not supported");
  }
  if (object.is(Kind::kTuple) && std::string_view(object.as_list().type_name) == "group") {
    if (name == "grouper") return object.as_list().items[0];
    if (name == "list") return object.as_list().items[1];
  }
  return std::nullopt;
}

Value Interpreter::attribute(const Value& object, const Value& name) {
  budget_.step();
  require_defined(object);
  if (auto found = find_attribute(*this, object, to_bytes(name.as_text()))) return *found;
  if (object.is(Kind::kDict)) {
    if (const Value* found = object.as_dict().find(name)) return *found;
  }
  return Value::undefined_part(budget_, object, name);
}

Value Interpreter::subscript(const Value& object, const Value& index) {
  budget_.step();
  if (auto found = item(*this, object, index)) return *found;
  if (index.is(Kind::kText)) {
    budget_.work(index.as_text().size());
    if (auto found = find_attribute(*this, object, to_bytes(index.as_text()))) return *found;
  }
  return Value::undefined_part(budget_, object, index);
}

Value Interpreter::attribute_path(const Value& object, const Value& path, const Value* otherwise) {
  const auto defined = [&](Value found) {
    const bool replaced = found.is(Kind::kUndefined) && otherwise != nullptr;
    return replaced ? *otherwise : std::move(found);
  };
  if (!path.is(Kind::kText)) return defined(subscript(object, path));
  Value current = object;
  TextView rest = path.as_text();
  while (true) {
    const std::size_t end = std::min(rest.find(U'.'), rest.size());
    const TextView part = rest.substr(0, end);
    budget_.work(part.size() + 1);
    const bool is_number = !part.empty() && part.size() < 10 &&
                           std::all_of(
                               part.begin(), part.end(),
                               [](Unit c) { return code_of(c) >= '0' && code_of(c) <= '9'; });
    current = defined(subscript(current, is_number ? Value::integer(std::stoll(to_bytes(part)))
                                                   : Value::text(budget_, Text(part))));
    if (end == rest.size()) return current;
    rest.remove_prefix(end + 1);
  }
}

Value slice(Interpreter& interpreter, const Value& object, const Value& start, const Value& stop,
            const Value& step) {
  require_defined(object);
  const auto whole = [](const Value& value) -> std::optional<std::int64_t> {
    if (value.is(Kind::kNone)) return std::nullopt;
    require_defined(value);
    if (!value.is_whole()) {
      fail("slice indices must be integers or None or have an __index__ method");
    }
    return value.as_int();
  };
  if (!object.is_sequence() && !object.is(Kind::kText) && !object.is(Kind::kRange)) {
    fail("'" + type_name(object) + "' object cannot be sliced");
  }
  const std::int64_t n = length_of(object).value();
  const std::int64_t by = whole(step).value_or(1);
  if (by == 0) fail("slice step cannot be zero");
  // As PySlice_AdjustIndices: into [0, n] forwards, [-1, n - 1] backwards.
  const std::int64_t low = by > 0 ? 0 : -1, high = by > 0 ? n : n - 1;
  const auto place = [&](const Value& value, std::int64_t otherwise) {
    const std::optional<std::int64_t> index = whole(value);
    if (!index) return otherwise;
    return *index < 0 ? (*index < -n ? low : std::max(low, *index + n)) : std::min(*index, high);
  };
  const std::int64_t first = place(start, by > 0 ? 0 : n - 1);
  const std::int64_t last = place(stop, by > 0 ? n : -1);
  const std::int64_t span = by > 0 ? last - first : first - last;
  const std::uint64_t stride =
      by > 0 ? static_cast<std::uint64_t>(by) : 0 - static_cast<std::uint64_t>(by);
  const std::int64_t count =
      span <= 0 ? 0
                : static_cast<std::int64_t>((static_cast<std::uint64_t>(span) - 1) / stride + 1);
  Budget& budget = interpreter.budget();
  // Where a second element exists the stride is at most n, so nothing overflows.
  const auto at = [&](std::int64_t i) {
    return static_cast<std::size_t>(i == 0 ? first : first + i * by);
  };
  if (object.is(Kind::kText)) {
    const TextView text = object.as_text();
    TextBuilder out(budget);
    if (by == 1) {
      out.append(text.substr(static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
    } else {
      out.expect(static_cast<std::size_t>(count));
      for (std::int64_t i = 0; i < count; ++i) out.push(text[at(i)]);
    }
    return out.take(object.is_markup());
  }
  if (object.is(Kind::kRange)) fail("slices of range() are not supported: make a list of it first");
  Values items;
  budget.work(16 * static_cast<std::uint64_t>(count));
  items.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) items.push_back(object.as_list().items[at(i)]);
  return object.is(Kind::kList) ? Value::list(budget, std::move(items))
                                : Value::tuple(budget, std::move(items));
}

}  // namespace specdec::chat
