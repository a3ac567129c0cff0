// The values that a template computes with: Python's plain types and jinja's own objects.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "chat_template/heap.h"
#include "chat_template/text.h"

namespace specdec::chat {

enum class Kind : std::uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kText,
  kList,
  kTuple,
  kDict,
  kGenerator,  // what map(), items() and others give: read once
  kView,       // dict.keys(), .values(), .items()
  kRange,
  kCallable,  // a function, method or macro
  kObject,    // namespace, loop, cycler, joiner
};

class Value;
struct TextData;
struct ListData;
struct DictData;
struct UndefinedData;
class CallableData;
class ObjectData;

using Values = std::vector<Value>;

// Copies share their contents, which never change once made (but those of objects).
class Value {
 public:
  Value() = default;  // None
  static Value none() { return {}; }
  static Value boolean(bool flag, bool callers = false);
  static Value integer(std::int64_t number, bool callers = false);
  static Value real(double number, bool callers = false);
  static Value text(Budget& budget, Text text, bool markup = false);
  static Value ascii(Budget& budget, std::string_view text);
  static Value list(Budget& budget, Values items);
  static Value tuple(Budget& budget, Values items);
  static Value generator(Budget& budget, Values items);
  static Value view(Budget& budget, Values items, const char* type_name);
  static Value range(Budget& budget, std::int64_t start, std::int64_t stop, std::int64_t step);
  static Value dict(Ref<DictData> data);
  static Value undefined(Budget& budget, std::string hint);
  static Value undefined_name(Budget& budget, Text name);
  // What `object` lacks; `name` is an attribute or a subscript.
  static Value undefined_part(Budget& budget, const Value& object, Value name);
  static Value callable(Ref<CallableData> data);
  static Value object(Ref<ObjectData> data);

  [[nodiscard]] Kind kind() const noexcept { return kind_; }
  [[nodiscard]] bool is(Kind kind) const noexcept { return kind_ == kind; }
  [[nodiscard]] bool is_number() const noexcept {
    return kind_ == Kind::kBool || kind_ == Kind::kInt || kind_ == Kind::kFloat;
  }
  [[nodiscard]] bool is_whole() const noexcept {
    return kind_ == Kind::kBool || kind_ == Kind::kInt;
  }
  [[nodiscard]] bool is_sequence() const noexcept {
    return kind_ == Kind::kList || kind_ == Kind::kTuple;
  }
  // A number, or a truth value, that came from the caller: its text is the caller's.
  [[nodiscard]] bool callers() const noexcept { return callers_; }
  [[nodiscard]] Unit mark() const noexcept { return callers_ ? kCallers : 0; }

  [[nodiscard]] bool as_bool() const noexcept { return integer_ != 0; }
  [[nodiscard]] std::int64_t as_int() const noexcept { return integer_; }  // bool too
  [[nodiscard]] double as_double() const noexcept {
    return kind_ == Kind::kFloat ? real_ : static_cast<double>(integer_);
  }
  [[nodiscard]] TextView as_text() const noexcept;
  [[nodiscard]] bool is_markup() const noexcept;           // text that `safe` made
  [[nodiscard]] const ListData& as_list() const noexcept;  // list, tuple, view, generator, range
  [[nodiscard]] ListData& list_data() const noexcept;
  [[nodiscard]] const DictData& as_dict() const noexcept;
  [[nodiscard]] const UndefinedData& as_undefined() const noexcept;
  [[nodiscard]] const Ref<Heap>& heap() const noexcept { return heap_; }
  [[nodiscard]] CallableData& as_callable() const noexcept;
  [[nodiscard]] ObjectData& as_object() const noexcept;

 private:
  Value(Kind kind, Ref<Heap> heap) : kind_(kind), heap_(std::move(heap)) {}

  Kind kind_ = Kind::kNone;
  bool callers_ = false;
  union {
    std::int64_t integer_ = 0;
    double real_;
  };
  Ref<Heap> heap_;
};

struct TextData : Heap {
  TextData(Budget& budget, Text contents, bool is_markup);
  Text text;
  bool markup;
};

// How deep lists and dicts may hold each other.
inline constexpr int kMaxValueDepth = 100;
[[nodiscard]] int depth_of(const Value& value) noexcept;
// The depth of what holds these. Throws TemplateError(kLimit) when that is too deep.
[[nodiscard]] int depth_around(std::span<const Value> values);

struct ListData : Heap {
  ListData(Budget& budget, Values contents);
  Values items;
  std::size_t n_read = 0;                      // of a generator
  const char* type_name = "";                  // of a view; "group" for what groupby makes
  std::int64_t start = 0, stop = 0, step = 1;  // of a range
  bool* written = nullptr;  // becomes true when the list is written as Python writes lists
};

struct DictData : Heap {
  struct Entry {
    Value key, value;
  };
  explicit DictData(Budget& budget);
  // Inserts or replaces. Throws for keys that have no hash.
  void set(const Value& key, Value value);
  [[nodiscard]] const Value* find(const Value& key) const;
  [[nodiscard]] const Value* find_ascii(std::string_view key) const;
  std::vector<Entry> entries;  // in the order they were first set

 private:
  [[nodiscard]] std::size_t place_of(const Value& key, std::uint64_t hash) const;
  void rehash(std::size_t n_places);
  std::vector<std::uint64_t> hashes_;  // of entries
  std::vector<std::uint32_t> places_;  // open addressing; entry + 1, 0: free
};

struct UndefinedData : Heap {
  using Heap::Heap;
  [[nodiscard]] std::string message() const;
  std::string hint;
  std::string owner;  // type of what lacks the part; "": a variable
  Value name;
};

// "dict", "str": Python's name of the type.
[[nodiscard]] std::string type_name(const Value& value);

// Throws TemplateError(kFailed), whose line the interpreter adds.
[[noreturn]] void fail(const std::string& message);
[[noreturn]] void fail_undefined(const Value& value);
// "unsupported operand type(s) for ..." and so on: names types, not values.
inline void require_defined(const Value& value) {
  if (value.is(Kind::kUndefined)) fail_undefined(value);
}

[[nodiscard]] bool truthy(const Value& value);
// len(); nothing for what has none.
[[nodiscard]] std::optional<std::int64_t> length_of(const Value& value);
// The items that a loop over the value sees; a generator is empty afterwards.
[[nodiscard]] Values iterate(Budget& budget, const Value& value);
[[nodiscard]] bool is_iterable(const Value& value);

}  // namespace specdec::chat
