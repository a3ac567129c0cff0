#include "chat_template/objects.h"

#include "chat_template/builtins.h"
#include "chat_template/compare.h"

namespace specdec::chat {
namespace {

class Function : public CallableData {
 public:
  Function(Budget& budget, Builtin run) : CallableData(budget, 64), run_(run) {}
  Value call(Interpreter& interpreter, Arguments& arguments) override {
    return run_(interpreter, arguments);
  }
  [[nodiscard]] const char* python_type() const override { return "function"; }

 private:
  Builtin run_;
};

class Method : public CallableData {
 public:
  Method(Budget& budget, Value self, Builtin run)
      : CallableData(budget, 64), self_(std::move(self)), run_(run) {
    depth = depth_around({&self_, 1});
  }
  Value call(Interpreter& interpreter, Arguments& arguments) override {
    arguments.positional.insert(arguments.positional.begin(), self_);
    return run_(interpreter, arguments);
  }

 private:
  Value self_;
  Builtin run_;
};

class Macro : public CallableData {
 public:
  Macro(Budget& budget, MacroState& state) : CallableData(budget, 64), state_(state) {}
  Value call(Interpreter& interpreter, Arguments& arguments) override {
    return interpreter.call_macro(state_, arguments);
  }
  [[nodiscard]] std::string written() const override {
    return "<Macro '" + state_.definition->name + "'>";
  }
  [[nodiscard]] const char* python_type() const override { return "Macro"; }

 private:
  MacroState& state_;
};

class Loop : public ObjectData {
 public:
  Loop(Budget& budget, LoopState& state) : ObjectData(budget, 64), state_(state) {}
  [[nodiscard]] const char* python_type() const override { return "LoopContext"; }
  [[nodiscard]] bool is_callable() const override { return true; }

  Value call(Interpreter& interpreter, Arguments& arguments) override {
    const Bound bound("loop", arguments, "iterable");
    return interpreter.recurse(state_, bound[0]);
  }

  std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) override {
    const std::int64_t index0 = state_.index0, length = state_.length;
    Budget& budget = interpreter.budget();
    if (name == "index") return Value::integer(index0 + 1);
    if (name == "index0") return Value::integer(index0);
    if (name == "revindex") return Value::integer(length - index0);
    if (name == "revindex0") return Value::integer(length - index0 - 1);
    if (name == "first") return Value::boolean(index0 == 0);
    if (name == "last") return Value::boolean(index0 == length - 1);
    if (name == "length") return Value::integer(length);
    if (name == "depth") return Value::integer(state_.depth0 + 1);
    if (name == "depth0") return Value::integer(state_.depth0);
    if (name == "previtem") {
      if (index0 == 0) return Value::undefined(budget, "there is no previous item");
      return item(index0 - 1);
    }
    if (name == "nextitem") {
      if (index0 == length - 1) return Value::undefined(budget, "there is no next item");
      return item(index0 + 1);
    }
    if (name == "cycle") return make_method(budget, self(), &cycle);
    if (name == "changed") return make_method(budget, self(), &changed);
    return std::nullopt;
  }

 private:
  [[nodiscard]] Value self() { return Value::object(Ref<ObjectData>(this)); }
  [[nodiscard]] Value item(std::int64_t i) const {
    if (state_.items.empty()) fail("the loop has ended");
    return state_.items[static_cast<std::size_t>(i)];
  }

  static Value cycle(Interpreter&, Arguments& arguments) {
    const LoopState& state = static_cast<Loop&>(arguments.positional[0].as_object()).state_;
    const std::size_t n = arguments.positional.size() - 1;
    if (n == 0) fail("no items for cycling given");
    return arguments.positional[1 + static_cast<std::size_t>(state.index0) % n];
  }

  static Value changed(Interpreter& interpreter, Arguments& arguments) {
    LoopState& state = static_cast<Loop&>(arguments.positional[0].as_object()).state_;
    const Values values(arguments.positional.begin() + 1, arguments.positional.end());
    Value now = Value::tuple(interpreter.budget(), values);
    if (state.changed && equal(interpreter.budget(), *state.changed, now)) {
      return Value::boolean(false);
    }
    state.changed = std::move(now);
    return Value::boolean(true);
  }

  LoopState& state_;
};

class Namespace : public ObjectData {
 public:
  Namespace(Budget& budget, NamespaceState& state) : ObjectData(budget, 64), state_(state) {}
  [[nodiscard]] const char* python_type() const override { return "Namespace"; }

  std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) override {
    interpreter.budget().work(4 * state_.variables.size());
    for (const auto& [other, value] : state_.variables) {
      if (other == name) return value;
    }
    return std::nullopt;
  }

  bool set(std::string_view name, const Value& value) override {
    if (name.starts_with('_')) {
      fail("a namespace cannot hold '" + printable(name) + "': names that begin with _ are kept");
    }
    budget().work(4 * state_.variables.size());
    for (auto& [other, old] : state_.variables) {
      if (other != name) continue;
      old = value;
      return true;
    }
    hold(96 + name.size());
    state_.variables.emplace_back(std::string(name), value);
    return true;
  }

 private:
  NamespaceState& state_;
};

class Cycler : public ObjectData {
 public:
  Cycler(Budget& budget, Values items)
      : ObjectData(budget, 64 + items.size() * sizeof(Value)), items_(std::move(items)) {
    depth = depth_around(items_);
  }
  [[nodiscard]] const char* python_type() const override { return "Cycler"; }

  std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) override {
    if (name == "current") return items_[at_];
    const Value self = Value::object(Ref<ObjectData>(this));
    if (name == "next") return make_method(interpreter.budget(), self, &next);
    if (name == "reset") return make_method(interpreter.budget(), self, &reset);
    return std::nullopt;
  }

 private:
  static Value next(Interpreter&, Arguments& arguments) {
    const Bound bound("next", arguments, "self");
    auto& self = static_cast<Cycler&>(bound[0].as_object());
    const Value item = self.items_[self.at_];
    self.at_ = (self.at_ + 1) % self.items_.size();
    return item;
  }
  static Value reset(Interpreter&, Arguments& arguments) {
    const Bound bound("reset", arguments, "self");
    static_cast<Cycler&>(bound[0].as_object()).at_ = 0;
    return {};
  }

  Values items_;
  std::size_t at_ = 0;
};

class Joiner : public ObjectData {
 public:
  Joiner(Budget& budget, Value separator)
      : ObjectData(budget, 64), separator_(std::move(separator)) {
    depth = depth_around({&separator_, 1});
  }
  [[nodiscard]] const char* python_type() const override { return "Joiner"; }
  [[nodiscard]] bool is_callable() const override { return true; }

  Value call(Interpreter& interpreter, Arguments& arguments) override {
    const Bound bound("joiner", arguments, "");
    if (used_) return separator_;
    used_ = true;
    return Value::ascii(interpreter.budget(), "");
  }
  std::optional<Value> attribute(Interpreter&, std::string_view name) override {
    if (name == "sep") return separator_;
    if (name == "used") return Value::boolean(used_);
    return std::nullopt;
  }

 private:
  Value separator_;
  bool used_ = false;
};

}  // namespace

Value make_loop(Budget& budget, LoopState& state) {
  return Value::object(make_heap<Loop>(budget, state));
}
Value make_macro(Budget& budget, MacroState& state) {
  return Value::callable(make_heap<Macro>(budget, state));
}
Value make_namespace(Budget& budget, NamespaceState& state) {
  return Value::object(make_heap<Namespace>(budget, state));
}
Value make_cycler(Budget& budget, Values items) {
  return Value::object(make_heap<Cycler>(budget, std::move(items)));
}
Value make_joiner(Budget& budget, Value separator) {
  return Value::object(make_heap<Joiner>(budget, std::move(separator)));
}
Value make_function(Budget& budget, Builtin run) {
  return Value::callable(make_heap<Function>(budget, run));
}
Value make_method(Budget& budget, Value self, Builtin run) {
  return Value::callable(make_heap<Method>(budget, std::move(self), run));
}

}  // namespace specdec::chat
