// What a template can call, and jinja's objects.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "chat_template/value.h"

namespace specdec::chat {

class Interpreter;

struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> named;
};

class CallableData : public Heap {
 public:
  using Heap::Heap;
  virtual Value call(Interpreter& interpreter, Arguments& arguments) = 0;
  // As Python writes it; "": an address, so it cannot be written.
  [[nodiscard]] virtual std::string written() const { return ""; }
  [[nodiscard]] virtual const char* python_type() const { return "builtin_function_or_method"; }
};

class ObjectData : public Heap {
 public:
  using Heap::Heap;
  // Nothing when there is no such attribute.
  virtual std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) = 0;
  // `object.name = value`; false where that is not possible.
  virtual bool set(std::string_view, const Value&) { return false; }
  virtual Value call(Interpreter& interpreter, Arguments& arguments);
  [[nodiscard]] virtual const char* python_type() const = 0;
  [[nodiscard]] virtual bool is_callable() const { return false; }
};

// The arguments of one call under their parameters' names.
class Bound {
 public:
  // `names`: "value width=" ... separated by spaces; those behind a `|` may be left out.
  Bound(const char* function, const Arguments& arguments, std::string_view names);
  // Null: not given.
  [[nodiscard]] const Value* get(std::size_t i) const { return values_[i]; }
  [[nodiscard]] const Value& operator[](std::size_t i) const { return *values_[i]; }
  [[nodiscard]] bool flag(std::size_t i, bool otherwise) const;
  [[nodiscard]] std::int64_t integer(std::size_t i, std::int64_t otherwise) const;
  [[nodiscard]] std::int64_t integer(std::size_t i) const;
  // A text; fails for other types. The second with a default that need not be given.
  [[nodiscard]] TextView text(std::size_t i) const;

 private:
  const char* function_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

}  // namespace specdec::chat
