#include "chat_template/value.h"

#include <algorithm>

#include "chat_template/callable.h"
#include "chat_template/compare.h"
#include "chat_template/write.h"

namespace specdec::chat {
namespace {

template <typename T>
T& contents(const Value& value) {
  return static_cast<T&>(*value.heap());
}

std::int64_t range_length(const ListData& range) {
  const std::int64_t span = range.step > 0 ? range.stop - range.start : range.start - range.stop;
  const std::int64_t step = range.step > 0 ? range.step : -range.step;
  return span <= 0 ? 0 : (span - 1) / step + 1;
}

}  // namespace

void fail(const std::string& message) { throw TemplateError(Problem::kFailed, message); }

void fail_undefined(const Value& value) { fail(value.as_undefined().message()); }

TextData::TextData(Budget& budget, Text contents, bool is_markup)
    : Heap(budget, sizeof(TextData) + contents.size() * sizeof(Unit)),
      text(std::move(contents)),
      markup(is_markup) {}

ListData::ListData(Budget& budget, Values contents)
    : Heap(budget, sizeof(ListData) + contents.size() * sizeof(Value)), items(std::move(contents)) {
  depth = depth_around(items);
}

DictData::DictData(Budget& budget) : Heap(budget, sizeof(DictData)) {}

void DictData::set(const Value& key, Value value) {
  const std::uint64_t hash = hash_of(budget(), key);
  depth = std::max({depth, depth_around({&value, 1}), depth_around({&key, 1})});
  if (places_.size() < 2 * (entries.size() + 1)) rehash(4 * (entries.size() + 2));
  const std::size_t place = place_of(key, hash);
  if (places_[place] != 0) {
    entries[places_[place] - 1].value = std::move(value);
    return;
  }
  hold(sizeof(Entry) + 24);
  entries.push_back({key, std::move(value)});
  hashes_.push_back(hash);
  places_[place] = static_cast<std::uint32_t>(entries.size());
}

const Value* DictData::find(const Value& key) const {
  const std::uint64_t hash = hash_of(budget(), key);
  if (entries.empty()) return nullptr;
  const std::size_t place = place_of(key, hash);
  return places_[place] == 0 ? nullptr : &entries[places_[place] - 1].value;
}

const Value* DictData::find_ascii(std::string_view key) const {
  return find(Value::ascii(budget(), key));
}

// Where the key is, or the free place where it would be. Probes are counted: hashes can be chosen.
std::size_t DictData::place_of(const Value& key, std::uint64_t hash) const {
  const std::size_t mask = places_.size() - 1;
  for (std::size_t i = hash & mask;; i = (i + 1) & mask) {
    budget().work(4);
    if (places_[i] == 0) return i;
    const std::size_t entry = places_[i] - 1;
    if (hashes_[entry] == hash && equal(budget(), entries[entry].key, key)) return i;
  }
}

void DictData::rehash(std::size_t n_places) {
  std::size_t n = 8;
  while (n < n_places) n *= 2;
  budget().work(n + 8 * entries.size());
  places_.assign(n, 0);
  for (std::size_t entry = 0; entry < entries.size(); ++entry) {
    std::size_t i = hashes_[entry] & (n - 1);
    while (places_[i] != 0) i = (i + 1) & (n - 1);
    places_[i] = static_cast<std::uint32_t>(entry + 1);
  }
}

std::string UndefinedData::message() const {
  if (!hint.empty()) return hint;
  std::string written;
  if (name.is(Kind::kText)) {
    written = "'" + to_bytes(name.as_text().substr(0, 100)) + "'";
  } else {
    Budget small({.work = 10'000, .memory_bytes = 1 << 20});
    written = name.is_number() ? to_bytes(text_of(small, name)) : type_name(name);
  }
  if (owner.empty()) return written + " is undefined";
  if (!name.is(Kind::kText)) return owner + " object has no element " + written;
  return "'" + owner + " object' has no attribute " + written;
}

int depth_of(const Value& value) noexcept { return value.heap() ? value.heap()->depth : 0; }

int depth_around(std::span<const Value> values) {
  int depth = 1;
  for (const Value& value : values) depth = std::max(depth, depth_of(value) + 1);
  if (depth > kMaxValueDepth) {
    throw TemplateError(Problem::kLimit, "values hold each other more than " +
                                             std::to_string(kMaxValueDepth) + " deep");
  }
  return depth;
}

Value Value::boolean(bool flag, bool callers) {
  Value value(Kind::kBool, {});
  value.integer_ = flag ? 1 : 0;
  value.callers_ = callers;
  return value;
}

Value Value::integer(std::int64_t number, bool callers) {
  Value value(Kind::kInt, {});
  value.integer_ = number;
  value.callers_ = callers;
  return value;
}

Value Value::real(double number, bool callers) {
  Value value(Kind::kFloat, {});
  value.real_ = number;
  value.callers_ = callers;
  return value;
}

Value Value::text(Budget& budget, Text text, bool markup) {
  return {Kind::kText, make_heap<TextData>(budget, std::move(text), markup)};
}

Value Value::ascii(Budget& budget, std::string_view text) {
  return Value::text(budget, ascii_text(text));
}

Value Value::list(Budget& budget, Values items) {
  return {Kind::kList, make_heap<ListData>(budget, std::move(items))};
}

Value Value::tuple(Budget& budget, Values items) {
  return {Kind::kTuple, make_heap<ListData>(budget, std::move(items))};
}

Value Value::generator(Budget& budget, Values items) {
  return {Kind::kGenerator, make_heap<ListData>(budget, std::move(items))};
}

Value Value::view(Budget& budget, Values items, const char* type_name) {
  const Ref<ListData> data = make_heap<ListData>(budget, std::move(items));
  data->type_name = type_name;
  return {Kind::kView, data};
}

Value Value::range(Budget& budget, std::int64_t start, std::int64_t stop, std::int64_t step) {
  const Ref<ListData> data = make_heap<ListData>(budget, Values{});
  data->start = start;
  data->stop = stop;
  data->step = step;
  return {Kind::kRange, data};
}

Value Value::dict(Ref<DictData> data) { return {Kind::kDict, std::move(data)}; }

Value Value::undefined(Budget& budget, std::string hint) {
  const Ref<UndefinedData> data =
      make_heap<UndefinedData>(budget, sizeof(UndefinedData) + hint.size());
  data->hint = std::move(hint);
  return {Kind::kUndefined, data};
}

Value Value::undefined_name(Budget& budget, Text name) {
  const Ref<UndefinedData> data = make_heap<UndefinedData>(budget, sizeof(UndefinedData));
  data->name = Value::text(budget, std::move(name));
  return {Kind::kUndefined, data};
}

Value Value::undefined_part(Budget& budget, const Value& object, Value name) {
  const Ref<UndefinedData> data = make_heap<UndefinedData>(budget, sizeof(UndefinedData));
  data->owner = specdec::chat::type_name(object);
  // Only what a message shows: a long chain of values would be freed by recursion.
  data->name = name.is_number() || name.is(Kind::kText)
                   ? std::move(name)
                   : Value::ascii(budget, specdec::chat::type_name(name));
  return {Kind::kUndefined, data};
}

Value Value::callable(Ref<CallableData> data) { return {Kind::kCallable, std::move(data)}; }
Value Value::object(Ref<ObjectData> data) { return {Kind::kObject, std::move(data)}; }

TextView Value::as_text() const noexcept { return contents<TextData>(*this).text; }
bool Value::is_markup() const noexcept {
  return kind_ == Kind::kText && contents<TextData>(*this).markup;
}
const ListData& Value::as_list() const noexcept { return contents<ListData>(*this); }
ListData& Value::list_data() const noexcept { return contents<ListData>(*this); }
const DictData& Value::as_dict() const noexcept { return contents<DictData>(*this); }
const UndefinedData& Value::as_undefined() const noexcept { return contents<UndefinedData>(*this); }
CallableData& Value::as_callable() const noexcept { return contents<CallableData>(*this); }
ObjectData& Value::as_object() const noexcept { return contents<ObjectData>(*this); }

std::string type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kText:
      return value.is_markup() ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kGenerator:
      return "generator";
    case Kind::kView:
      return value.as_list().type_name;
    case Kind::kRange:
      return "range";
    case Kind::kCallable:
      return value.as_callable().python_type();
    case Kind::kObject:
      return value.as_object().python_type();
  }
  return "object";
}

bool truthy(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return value.as_int() != 0;
    case Kind::kFloat:
      return value.as_double() != 0;
    case Kind::kGenerator:
    case Kind::kCallable:
    case Kind::kObject:
      return true;
    default:
      return length_of(value) != 0;
  }
}

std::optional<std::int64_t> length_of(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kText:
      return static_cast<std::int64_t>(value.as_text().size());
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
      return static_cast<std::int64_t>(value.as_list().items.size());
    case Kind::kDict:
      return static_cast<std::int64_t>(value.as_dict().entries.size());
    case Kind::kRange:
      return range_length(value.as_list());
    default:
      return std::nullopt;
  }
}

bool is_iterable(const Value& value) {
  return value.is(Kind::kGenerator) || length_of(value).has_value() ||
         (value.is(Kind::kObject) &&
          std::string_view(value.as_object().python_type()) == "LoopContext");
}

Values iterate(Budget& budget, const Value& value) {
  Values items;
  const auto reserve = [&](std::size_t n) {
    budget.work(8 * n + kStepWork);
    budget.hold(n * sizeof(Value));  // more than these exist nowhere at once
    budget.release(n * sizeof(Value));
    items.reserve(n);
  };
  switch (value.kind()) {
    case Kind::kUndefined:
      break;
    case Kind::kText:
      reserve(value.as_text().size());
      budget.work(16 * value.as_text().size());
      for (const Unit unit : value.as_text()) {
        items.push_back(Value::text(budget, Text(1, unit), value.is_markup()));
      }
      break;
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
      reserve(value.as_list().items.size());
      items = value.as_list().items;
      break;
    case Kind::kGenerator: {
      ListData& data = value.list_data();
      reserve(data.items.size() - data.n_read);
      items.assign(data.items.begin() + static_cast<std::ptrdiff_t>(data.n_read), data.items.end());
      data.n_read = data.items.size();
      break;
    }
    case Kind::kDict:
      reserve(value.as_dict().entries.size());
      for (const DictData::Entry& entry : value.as_dict().entries) items.push_back(entry.key);
      break;
    case Kind::kRange: {
      const ListData& data = value.as_list();
      const std::int64_t n = range_length(data);
      reserve(static_cast<std::size_t>(n));
      for (std::int64_t i = 0; i < n; ++i) {
        items.push_back(Value::integer(data.start + i * data.step));
      }
      break;
    }
    default:
      fail("'" + type_name(value) + "' object is not iterable");
  }
  return items;
}

}  // namespace specdec::chat
