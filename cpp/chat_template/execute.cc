// Statements.
#include <algorithm>

#include "chat_template/builtins.h"
#include "chat_template/depth.h"
#include "chat_template/objects.h"

namespace specdec::chat {

Interpreter::Interpreter(Budget& budget, Names& names, Clock clock)
    : budget_(budget),
      names_(names),
      clock_(std::move(clock)),
      loop_name_(names.id("loop")),
      caller_name_(names.id("caller")),
      kwargs_name_(names.id("kwargs")),
      varargs_name_(names.id("varargs")) {}

// Values point at the states below without owning them, so the order does not matter.
Interpreter::~Interpreter() = default;

void Interpreter::set_global(const std::string& name, Value value) {
  const int id = names_.id(name);
  for (auto& [other, old] : globals_) {
    if (other == id) {
      old = std::move(value);
      return;
    }
  }
  globals_.emplace_back(id, std::move(value));
}

Text Interpreter::run(const Body& body) {
  TextBuilder out(budget_);
  scope_ = make_heap<Scope>(budget_, Ref<Scope>());
  (void)execute(body, out);
  scope_ = Ref<Scope>();
  return out.take_text();
}

NamespaceState& Interpreter::new_namespace() {
  budget_.hold(128);  // until the end of the rendering
  namespaces_.push_back(std::make_unique<NamespaceState>());
  return *namespaces_.back();
}

MacroState& Interpreter::new_macro(const MacroDefinition& definition) {
  budget_.hold(128);
  macros_.push_back(std::make_unique<MacroState>());
  macros_.back()->definition = &definition;
  macros_.back()->scope = scope_;
  return *macros_.back();
}

// The scope around, to be put back by the caller.
Ref<Scope> Interpreter::enter() {
  Ref<Scope> around = scope_;
  scope_ = make_heap<Scope>(budget_, around);
  return around;
}

void Interpreter::set_variable(int name, Value value) {
  budget_.work(scope_->variables.size());
  for (auto& [other, old] : scope_->variables) {
    if (other == name) {
      old = std::move(value);
      return;
    }
  }
  scope_->hold(sizeof(std::pair<int, Value>));
  scope_->variables.emplace_back(name, std::move(value));
}

void Interpreter::assign(const Target& target, const Value& value) {
  const Depth depth(*this);
  if (target.is_tuple) {
    const Values items = iterate(budget_, value);
    if (items.size() != target.parts.size()) {
      fail((items.size() < target.parts.size() ? "not enough values to unpack (expected "
                                               : "too many values to unpack (expected ") +
           std::to_string(target.parts.size()) + ")");
    }
    for (std::size_t i = 0; i < items.size(); ++i) assign(target.parts[i], items[i]);
  } else if (target.attribute.is(Kind::kText)) {
    Expr name;
    name.name = target.name;
    name.word = names_.text(target.name);
    name.line = line_;
    const Value object = lookup(name);
    if (!object.is(Kind::kObject) ||
        !object.as_object().set(to_bytes(target.attribute.as_text()), value)) {
      fail("cannot assign attribute on non-namespace object");
    }
  } else {
    set_variable(target.name, value);
  }
}

Interpreter::Flow Interpreter::execute(const Body& body, TextBuilder& out) {
  const Depth depth(*this);
  for (const auto& stmt : body) {
    const Flow flow = execute(*stmt, out);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute(const Stmt& stmt, TextBuilder& out) {
  budget_.step();
  line_ = stmt.line;
  switch (stmt.kind) {
    case StmtKind::kData:
      out.append(stmt.text.as_text());
      break;
    case StmtKind::kOutput:
      for (const ExprPtr& expr : stmt.exprs) out.write(evaluate(*expr));
      break;
    case StmtKind::kIf:
      return execute_if(stmt, out);
    case StmtKind::kFor:
      return execute_for(stmt, out);
    case StmtKind::kSet:
      assign(stmt.targets[0], evaluate(*stmt.exprs[0]));
      break;
    case StmtKind::kSetBlock:
    case StmtKind::kFilterBlock:
      return execute_block(stmt, out);
    case StmtKind::kMacro:
      execute_macro(stmt);
      break;
    case StmtKind::kCall:
      execute_call(stmt, out);
      break;
    case StmtKind::kWith:
      return execute_with(stmt, out);
    case StmtKind::kScope: {
      const Ref<Scope> around = enter();
      const Flow flow = execute(stmt.bodies[0], out);
      scope_ = around;
      return flow;
    }
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute_if(const Stmt& stmt, TextBuilder& out) {
  for (std::size_t i = 0; i < stmt.exprs.size(); ++i) {
    if (truthy(evaluate(*stmt.exprs[i]))) return execute(stmt.bodies[i], out);
  }
  return stmt.bodies.size() > stmt.exprs.size() ? execute(stmt.bodies.back(), out) : Flow::kNormal;
}

// Those of the items for which the loop's own condition holds.
Values Interpreter::filtered(const Stmt& stmt, Values items) {
  if (!stmt.exprs[1]) return items;
  Values kept;
  const Ref<Scope> around = scope_;
  for (Value& item : items) {
    (void)enter();
    assign(stmt.targets[0], item);
    if (truthy(evaluate(*stmt.exprs[1]))) kept.push_back(std::move(item));
    scope_ = around;
  }
  return kept;
}

Interpreter::Flow Interpreter::execute_for(const Stmt& stmt, TextBuilder& out) {
  Values items = iterate(budget_, evaluate(*stmt.exprs[0]));
  return execute_loop(stmt, std::move(items), 0, out);
}

Interpreter::Flow Interpreter::execute_loop(const Stmt& stmt, Values items, std::int64_t depth0,
                                            TextBuilder& out) {
  items = filtered(stmt, std::move(items));
  if (items.empty()) {
    return stmt.bodies.size() > 1 ? execute(stmt.bodies[1], out) : Flow::kNormal;
  }
  budget_.hold(sizeof(LoopState) + 16);
  loops_.push_back(std::make_unique<LoopState>());
  LoopState& loop = *loops_.back();
  loop.length = static_cast<std::int64_t>(items.size());
  loop.items = std::move(items);
  loop.depth0 = depth0;
  loop.recursive = stmt.recursive ? &stmt : nullptr;
  loop.scope = scope_.get();
  const Value loop_value = make_loop(budget_, loop);
  const Ref<Scope> around = scope_;
  for (std::int64_t i = 0; i < loop.length; ++i) {
    loop.index0 = i;
    (void)enter();
    // The target comes last: it may be called `loop`.
    set_variable(loop_name_, loop_value);
    assign(stmt.targets[0], loop.items[static_cast<std::size_t>(i)]);
    const Flow flow = execute(stmt.bodies[0], out);
    scope_ = around;
    if (flow == Flow::kBreak) break;
  }
  loop.items = {};
  loop.recursive = nullptr;
  loop.scope = nullptr;
  return Flow::kNormal;
}

Value Interpreter::recurse(const LoopState& loop, const Value& items) {
  if (loop.recursive == nullptr) {
    fail("The loop must have the 'recursive' marker to be called recursively.");
  }
  const Depth depth(*this);
  const Ref<Scope> inside = scope_;
  scope_ = Ref<Scope>(loop.scope);
  TextBuilder out(budget_);
  (void)execute_loop(*loop.recursive, iterate(budget_, items), loop.depth0 + 1, out);
  scope_ = inside;
  return out.take();
}

// {% set x %} and {% filter x %}
Interpreter::Flow Interpreter::execute_block(const Stmt& stmt, TextBuilder& out) {
  TextBuilder inner(budget_);
  const Ref<Scope> around = enter();
  const Flow flow = execute(stmt.bodies[0], inner);
  scope_ = around;
  if (flow != Flow::kNormal) return flow;
  Value text = inner.take();
  if (stmt.exprs[0]) text = evaluate_filter(*stmt.exprs[0], &text);
  if (stmt.kind == StmtKind::kSetBlock) {
    assign(stmt.targets[0], text);
  } else {
    out.write(text);
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute_with(const Stmt& stmt, TextBuilder& out) {
  const Values values = evaluate_all(stmt.exprs);
  const Ref<Scope> around = enter();
  for (std::size_t i = 0; i < values.size(); ++i) assign(stmt.targets[i], values[i]);
  const Flow flow = execute(stmt.bodies[0], out);
  scope_ = around;
  return flow;
}

void Interpreter::execute_macro(const Stmt& stmt) {
  set_variable(stmt.name, make_macro(budget_, new_macro(*stmt.macro)));
}

void Interpreter::execute_call(const Stmt& stmt, TextBuilder& out) {
  const Expr& expr = *stmt.exprs[0];
  const Value caller = make_macro(budget_, new_macro(*stmt.macro));
  const Value callee = evaluate(*expr.parts[0]);
  Arguments arguments;
  evaluate_arguments(expr.call, arguments);
  arguments.named.emplace_back("caller", caller);
  line_ = expr.line;
  out.write(call(callee, arguments));
}

// Parameters, then what the body asks for by name: caller, kwargs, varargs.
Value Interpreter::call_macro(const MacroState& macro, Arguments& arguments) {
  const MacroDefinition& definition = *macro.definition;
  const std::size_t n_parameters = definition.parameters.size();
  const std::size_t first_default = n_parameters - definition.defaults.size();
  const auto take_named = [&](const std::string& name) -> std::optional<Value> {
    for (auto at = arguments.named.begin(); at != arguments.named.end(); ++at) {
      if (at->first != name) continue;
      Value value = std::move(at->second);
      arguments.named.erase(at);
      return value;
    }
    return std::nullopt;
  };
  const Ref<Scope> outside = scope_;
  scope_ = make_heap<Scope>(budget_, macro.scope);
  bool has_caller = false;
  for (std::size_t i = 0; i < n_parameters; ++i) {
    budget_.step();
    const std::string& name = definition.parameter_names[i];
    has_caller |= name == "caller";
    std::optional<Value> value;
    if (i < arguments.positional.size()) {
      value = arguments.positional[i];
    } else if (!(value = take_named(name))) {
      value = i >= first_default
                  ? evaluate(*definition.defaults[i - first_default])
                  : Value::undefined(budget_, "parameter '" + name + "' was not provided");
    }
    set_variable(definition.parameters[i], std::move(*value));
  }
  if (definition.uses_caller && !has_caller) {
    std::optional<Value> caller = take_named("caller");
    if (!caller || caller->is(Kind::kNone)) {
      caller = Value::undefined(budget_, "No caller defined");
    }
    set_variable(caller_name_, std::move(*caller));
  }
  if (definition.uses_kwargs) {
    const Ref<DictData> rest = make_heap<DictData>(budget_);
    for (auto& [name, value] : arguments.named) {
      rest->set(Value::text(budget_, decode_text(name)), std::move(value));
    }
    set_variable(kwargs_name_, Value::dict(rest));
  } else if (!arguments.named.empty()) {
    fail("macro '" + definition.name + "' takes no keyword argument '" +
         printable(arguments.named[0].first) + "'");
  }
  const std::size_t n_taken = std::min(n_parameters, arguments.positional.size());
  if (definition.uses_varargs) {
    set_variable(varargs_name_,
                 Value::tuple(budget_, Values(arguments.positional.begin() +
                                                  static_cast<std::ptrdiff_t>(n_taken),
                                              arguments.positional.end())));
  } else if (arguments.positional.size() > n_parameters) {
    fail("macro '" + definition.name + "' takes not more than " + std::to_string(n_parameters) +
         " argument(s)");
  }
  TextBuilder out(budget_);
  (void)execute(definition.body, out);
  scope_ = outside;
  return out.take();
}

}  // namespace specdec::chat
