// Filters that order, cut and look into sequences.
#include <algorithm>
#include <numeric>

#include "chat_template/builtins.h"
#include "chat_template/compare.h"
#include "chat_template/unicode.h"

namespace specdec::chat {
namespace {

bool given(const Bound& bound, std::size_t i) {
  return bound.get(i) != nullptr && !bound[i].is(Kind::kNone);
}

// Text in lower case, so that case does not count.
Value ignoring_case(Interpreter& interpreter, const Value& value) {
  if (!value.is(Kind::kText)) return value;
  interpreter.budget().work(12 * value.as_text().size());
  return Value::text(interpreter.budget(), lower(value.as_text()));
}

// Attribute `path` of the item (the item itself without), as a key.
Value key_of(Interpreter& interpreter, const Value& item, const Value* path, bool ignore_case) {
  Value key =
      path == nullptr || path->is(Kind::kNone) ? item : interpreter.attribute_path(item, *path);
  return ignore_case ? ignoring_case(interpreter, key) : key;
}

// Positions in the order of the keys: stable, as sorted() is, also when reversed.
std::vector<std::size_t> sorted_places(Interpreter& interpreter, const Values& keys, bool reverse) {
  std::vector<std::size_t> places(keys.size()), merged(keys.size());
  std::iota(places.begin(), places.end(), 0);
  const auto goes_before = [&](std::size_t a, std::size_t b) {
    interpreter.budget().step();
    return reverse ? less(interpreter.budget(), keys[b], keys[a])
                   : less(interpreter.budget(), keys[a], keys[b]);
  };
  for (std::size_t width = 1; width < places.size(); width *= 2) {
    for (std::size_t begin = 0; begin < places.size(); begin += 2 * width) {
      const std::size_t middle = std::min(begin + width, places.size());
      const std::size_t end = std::min(begin + 2 * width, places.size());
      std::size_t left = begin, right = middle;
      for (std::size_t i = begin; i < end; ++i) {
        const bool take_right =
            left == middle || (right < end && goes_before(places[right], places[left]));
        merged[i] = places[take_right ? right++ : left++];
      }
    }
    std::swap(places, merged);
  }
  return places;
}

Value sort(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("sort", arguments, "value | reverse case_sensitive attribute");
  Budget& budget = interpreter.budget();
  const Values items = iterate(budget, bound[0]);
  const bool ignore_case = !bound.flag(2, false);
  // Several attributes with commas between them.
  Values paths;
  if (given(bound, 3) && bound[3].is(Kind::kText)) {
    TextView rest = bound[3].as_text();
    while (true) {
      const std::size_t end = std::min(rest.find(U','), rest.size());
      paths.push_back(Value::text(budget, Text(rest.substr(0, end))));
      if (end == rest.size()) break;
      rest.remove_prefix(end + 1);
    }
  } else {
    paths.push_back(given(bound, 3) ? bound[3] : Value::none());
  }
  Values keys;
  for (const Value& item : items) {
    Values parts;
    for (const Value& path : paths) parts.push_back(key_of(interpreter, item, &path, ignore_case));
    keys.push_back(Value::list(budget, std::move(parts)));
  }
  Values sorted;
  for (const std::size_t place : sorted_places(interpreter, keys, bound.flag(1, false))) {
    sorted.push_back(items[place]);
  }
  return Value::list(budget, std::move(sorted));
}

Value dictsort(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("dictsort", arguments, "value | case_sensitive by reverse");
  Budget& budget = interpreter.budget();
  require_defined(bound[0]);
  if (!bound[0].is(Kind::kDict)) {
    fail("'" + type_name(bound[0]) + "' object has no attribute 'items'");
  }
  const bool by_value = bound.get(2) != nullptr && equals_ascii(bound.text(2), "value");
  if (bound.get(2) != nullptr && !by_value && !equals_ascii(bound.text(2), "key")) {
    fail("You can only sort by either \"key\" or \"value\"");
  }
  const auto& entries = bound[0].as_dict().entries;
  Values keys, sorted;
  for (const DictData::Entry& entry : entries) {
    const Value& key = by_value ? entry.value : entry.key;
    keys.push_back(bound.flag(1, false) ? key : ignoring_case(interpreter, key));
  }
  for (const std::size_t place : sorted_places(interpreter, keys, bound.flag(3, false))) {
    sorted.push_back(Value::tuple(budget, {entries[place].key, entries[place].value}));
  }
  return Value::list(budget, std::move(sorted));
}

Value groupby(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("groupby", arguments, "value attribute | default case_sensitive");
  Budget& budget = interpreter.budget();
  const Values items = iterate(budget, bound[0]);
  const bool ignore_case = !bound.flag(3, false);
  const auto real_key = [&](const Value& item) {
    return interpreter.attribute_path(item, bound[1], given(bound, 2) ? bound.get(2) : nullptr);
  };
  Values keys;
  for (const Value& item : items) {
    Value key = real_key(item);
    keys.push_back(ignore_case ? ignoring_case(interpreter, key) : std::move(key));
  }
  Values groups, group;
  Value group_key;
  const auto finish = [&] {
    if (group.empty()) return;
    const Value name = ignore_case ? real_key(group[0]) : group_key;
    Value pair = Value::tuple(budget, {name, Value::list(budget, std::move(group))});
    pair.list_data().type_name = "group";
    groups.push_back(std::move(pair));
    group = {};
  };
  for (const std::size_t place : sorted_places(interpreter, keys, false)) {
    if (!group.empty() && !equal(budget, group_key, keys[place])) finish();
    group_key = keys[place];
    group.push_back(items[place]);
  }
  finish();
  return Value::list(budget, std::move(groups));
}

Value extreme(Interpreter& interpreter, Arguments& arguments, const char* name, bool largest) {
  const Bound bound(name, arguments, "value | case_sensitive attribute");
  const bool ignore_case = !bound.flag(1, false);
  std::optional<Value> best, best_key;
  for (const Value& item : iterate(interpreter.budget(), bound[0])) {
    Value key = key_of(interpreter, item, bound.get(2), ignore_case);
    if (best && !(largest ? less(interpreter.budget(), *best_key, key, ">")
                          : less(interpreter.budget(), key, *best_key, "<"))) {
      continue;
    }
    best = item;
    best_key = std::move(key);
  }
  if (best) return *best;
  return Value::undefined(interpreter.budget(), "No aggregated item, sequence was empty.");
}
Value min(Interpreter& interpreter, Arguments& arguments) {
  return extreme(interpreter, arguments, "min", false);
}
Value max(Interpreter& interpreter, Arguments& arguments) {
  return extreme(interpreter, arguments, "max", true);
}

Value unique(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("unique", arguments, "value | case_sensitive attribute");
  const bool ignore_case = !bound.flag(1, false);
  const Ref<DictData> seen = make_heap<DictData>(interpreter.budget());
  Values kept;
  for (const Value& item : iterate(interpreter.budget(), bound[0])) {
    const Value key = key_of(interpreter, item, bound.get(2), ignore_case);
    if (seen->find(key) != nullptr) continue;
    seen->set(key, Value::none());
    kept.push_back(item);
  }
  return Value::generator(interpreter.budget(), std::move(kept));
}

Value length(Interpreter&, Arguments& arguments) {
  const Bound bound("length", arguments, "object");
  const std::optional<std::int64_t> n = length_of(bound[0]);
  if (!n && bound[0].is(Kind::kObject)) fail("the length of this object is not supported");
  if (!n) fail("object of type '" + type_name(bound[0]) + "' has no len()");
  return Value::integer(*n);
}

Value default_value(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("default", arguments, "value | default_value boolean");
  const bool replaced =
      bound[0].is(Kind::kUndefined) || (bound.flag(2, false) && !truthy(bound[0]));
  if (!replaced) return bound[0];
  return bound.get(1) != nullptr ? bound[1] : Value::ascii(interpreter.budget(), "");
}

Value first(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("first", arguments, "seq");
  if (bound[0].is(Kind::kGenerator)) {
    ListData& data = bound[0].list_data();
    if (data.n_read < data.items.size()) return data.items[data.n_read++];
  } else if (bound[0].is_sequence()) {
    if (!bound[0].as_list().items.empty()) return bound[0].as_list().items[0];
  } else if (Values items = iterate(interpreter.budget(), bound[0]); !items.empty()) {
    return items[0];
  }
  return Value::undefined(interpreter.budget(), "No first item, sequence was empty.");
}

Value last(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("last", arguments, "seq");
  if (bound[0].is(Kind::kGenerator)) fail("'generator' object is not reversible");
  if (bound[0].is_sequence()) {
    if (!bound[0].as_list().items.empty()) return bound[0].as_list().items.back();
  } else if (Values items = iterate(interpreter.budget(), bound[0]); !items.empty()) {
    return items.back();
  }
  return Value::undefined(interpreter.budget(), "No last item, sequence was empty.");
}

Value reverse(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("reverse", arguments, "value");
  if (bound[0].is(Kind::kText)) {
    return slice(interpreter, bound[0], Value::none(), Value::none(), Value::integer(-1));
  }
  Values items = iterate(interpreter.budget(), bound[0]);
  std::reverse(items.begin(), items.end());
  if (bound[0].is(Kind::kGenerator)) return Value::list(interpreter.budget(), std::move(items));
  return Value::generator(interpreter.budget(), std::move(items));
}

Value list(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("list", arguments, "value");
  return Value::list(interpreter.budget(), iterate(interpreter.budget(), bound[0]));
}

Value items(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("items", arguments, "value");
  Values pairs;
  if (!bound[0].is(Kind::kUndefined)) {
    if (!bound[0].is(Kind::kDict)) fail("Can only get item pairs from a mapping.");
    for (const DictData::Entry& entry : bound[0].as_dict().entries) {
      interpreter.budget().step();
      pairs.push_back(Value::tuple(interpreter.budget(), {entry.key, entry.value}));
    }
  }
  return Value::generator(interpreter.budget(), std::move(pairs));
}

Value join(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("join", arguments, "value | d attribute");
  Budget& budget = interpreter.budget();
  const Text separator = bound.get(1) == nullptr ? Text() : text_of(budget, bound[1]);
  TextBuilder out(budget);
  bool is_first = true;
  for (const Value& item : iterate(budget, bound[0])) {
    if (!is_first) out.append(separator);
    is_first = false;
    out.write(given(bound, 2) ? interpreter.attribute_path(item, bound[2]) : item);
  }
  return out.take();
}

Value sum(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("sum", arguments, "iterable | attribute start");
  Value total = bound.get(2) != nullptr ? bound[2] : Value::integer(0);
  if (total.is(Kind::kText)) fail("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : iterate(interpreter.budget(), bound[0])) {
    interpreter.budget().step();
    total = binary(interpreter, "+", total,
                   given(bound, 1) ? interpreter.attribute_path(item, bound[1]) : item);
  }
  return total;
}

Value batch(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("batch", arguments, "value linecount | fill_with");
  Budget& budget = interpreter.budget();
  const std::int64_t n = bound.integer(1);
  Values rows, row;
  for (const Value& item : iterate(budget, bound[0])) {
    if (static_cast<std::int64_t>(row.size()) == n) {
      rows.push_back(Value::list(budget, std::move(row)));
      row = {};
    }
    row.push_back(item);
  }
  if (!row.empty()) {
    while (given(bound, 2) && static_cast<std::int64_t>(row.size()) < n) {
      budget.hold(sizeof(Value));
      budget.release(sizeof(Value));
      budget.step();
      row.push_back(bound[2]);
    }
    rows.push_back(Value::list(budget, std::move(row)));
  }
  return Value::generator(budget, std::move(rows));
}

Value slices(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("slice", arguments, "value slices | fill_with");
  Budget& budget = interpreter.budget();
  const Values all = iterate(budget, bound[0]);
  const std::int64_t n = bound.integer(1);
  if (n == 0) fail("integer division or modulo by zero");
  const auto size = static_cast<std::int64_t>(all.size());
  Values rows;
  std::int64_t begin = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    budget.step();
    const std::int64_t end = begin + size / n + (i < size % n ? 1 : 0);
    Values row(all.begin() + begin, all.begin() + end);
    if (given(bound, 2) && i >= size % n) row.push_back(bound[2]);
    rows.push_back(Value::list(budget, std::move(row)));
    begin = end;
  }
  return Value::generator(budget, std::move(rows));
}

Value attr(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("attr", arguments, "obj name");
  require_defined(bound[0]);
  const Value name = to_text_value(interpreter.budget(), bound[1]);
  if (auto found = find_attribute(interpreter, bound[0], to_bytes(name.as_text()))) return *found;
  return Value::undefined_part(interpreter.budget(), bound[0], name);
}

constexpr NamedBuiltin kTable[] = {
    {"attr", attr},
    {"batch", batch},
    {"count", length},
    {"d", default_value},
    {"default", default_value},
    {"dictsort", dictsort},
    {"first", first},
    {"groupby", groupby},
    {"items", items},
    {"join", join},
    {"last", last},
    {"length", length},
    {"list", list},
    {"max", max},
    {"min", min},
    {"reverse", reverse},
    {"slice", slices},
    {"sort", sort},
    {"sum", sum},
    {"unique", unique},
};

}  // namespace

const std::span<const NamedBuiltin> kListFilters = kTable;

}  // namespace specdec::chat
