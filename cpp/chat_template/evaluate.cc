// Expressions.
#include <algorithm>

#include "chat_template/builtins.h"
#include "chat_template/compare.h"
#include "chat_template/depth.h"

namespace specdec::chat {

Value Interpreter::evaluate(const Expr& expr) {
  const Depth depth(*this);
  switch (expr.kind) {
    case ExprKind::kConst:
      return expr.value;
    case ExprKind::kName:
      return lookup(expr);
    case ExprKind::kList:
      return Value::list(budget_, evaluate_all(expr.parts));
    case ExprKind::kTuple:
      return Value::tuple(budget_, evaluate_all(expr.parts));
    case ExprKind::kDict:
      return evaluate_dict(expr);
    case ExprKind::kAttribute:
      return attribute(evaluate(*expr.parts[0]), expr.value);
    case ExprKind::kSubscript:
      return evaluate_subscript(expr);
    case ExprKind::kSlice:
      fail("a slice stands alone between brackets");
    case ExprKind::kCall:
      return evaluate_call(expr);
    case ExprKind::kFilter:
      return evaluate_filter(expr, nullptr);
    case ExprKind::kTest:
      return evaluate_test(expr);
    case ExprKind::kNot:
      return Value::boolean(!truthy(evaluate(*expr.parts[0])));
    case ExprKind::kAnd: {
      Value left = evaluate(*expr.parts[0]);
      return truthy(left) ? evaluate(*expr.parts[1]) : left;
    }
    case ExprKind::kOr: {
      Value left = evaluate(*expr.parts[0]);
      return truthy(left) ? left : evaluate(*expr.parts[1]);
    }
    case ExprKind::kUnary:
      return unary(expr.word, evaluate(*expr.parts[0]));
    case ExprKind::kBinary: {
      const Value left = evaluate(*expr.parts[0]);
      const Value right = evaluate(*expr.parts[1]);
      line_ = expr.line;
      return binary(*this, expr.word, left, right);
    }
    case ExprKind::kConcat:
      return evaluate_concat(expr);
    case ExprKind::kCompare:
      return evaluate_compare(expr);
    case ExprKind::kConditional:
      return evaluate_conditional(expr);
  }
  return {};
}

Value Interpreter::lookup(const Expr& expr) {
  line_ = expr.line;
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    budget_.work(scope->variables.size() + 4);
    for (const auto& [name, value] : scope->variables) {
      if (name == expr.name) return value;
    }
  }
  budget_.work(globals_.size());
  for (const auto& [name, value] : globals_) {
    if (name == expr.name) return value;
  }
  return Value::undefined_name(budget_, decode_text(expr.word));
}

Values Interpreter::evaluate_all(const std::vector<ExprPtr>& parts) {
  Values values;
  values.reserve(parts.size());
  for (const ExprPtr& part : parts) values.push_back(evaluate(*part));
  return values;
}

Value Interpreter::evaluate_dict(const Expr& expr) {
  const Ref<DictData> dict = make_heap<DictData>(budget_);
  for (std::size_t i = 0; i + 1 < expr.parts.size(); i += 2) {
    const Value key = evaluate(*expr.parts[i]);
    dict->set(key, evaluate(*expr.parts[i + 1]));
  }
  return Value::dict(dict);
}

Value Interpreter::evaluate_subscript(const Expr& expr) {
  const Value object = evaluate(*expr.parts[0]);
  const Expr& index = *expr.parts[1];
  if (index.kind != ExprKind::kSlice) return subscript(object, evaluate(index));
  Value bounds[3];
  for (std::size_t i = 0; i < 3; ++i) {
    if (index.parts[i]) bounds[i] = evaluate(*index.parts[i]);
  }
  line_ = expr.line;
  return slice(*this, object, bounds[0], bounds[1], bounds[2]);
}

void Interpreter::evaluate_arguments(const CallArguments& call, Arguments& out) {
  for (const ExprPtr& part : call.positional) out.positional.push_back(evaluate(*part));
  for (const auto& [name, part] : call.named) out.named.emplace_back(name, evaluate(*part));
  if (call.more_positional) {
    for (Value& value : iterate(budget_, evaluate(*call.more_positional))) {
      out.positional.push_back(std::move(value));
    }
  }
  if (call.more_named) {
    const Value more = evaluate(*call.more_named);
    if (!more.is(Kind::kDict)) fail("argument after ** must be a mapping, not " + type_name(more));
    for (const DictData::Entry& entry : more.as_dict().entries) {
      budget_.step();
      if (!entry.key.is(Kind::kText)) fail("keywords must be strings");
      out.named.emplace_back(to_bytes(entry.key.as_text()), entry.value);
    }
  }
}

Value Interpreter::evaluate_call(const Expr& expr) {
  const Value callee = evaluate(*expr.parts[0]);
  Arguments arguments;
  evaluate_arguments(expr.call, arguments);
  line_ = expr.line;
  return call(callee, arguments);
}

Value Interpreter::call(const Value& callee, Arguments& arguments) {
  const Depth depth(*this);
  if (callee.is(Kind::kCallable)) return callee.as_callable().call(*this, arguments);
  if (callee.is(Kind::kObject)) return callee.as_object().call(*this, arguments);
  require_defined(callee);
  fail("'" + type_name(callee) + "' object is not callable");
}

Value Interpreter::evaluate_filter(const Expr& expr, const Value* input) {
  Arguments arguments;
  if (expr.parts[0] == nullptr) {
    arguments.positional.push_back(*input);
  } else if (input != nullptr && expr.parts[0]->kind == ExprKind::kFilter) {
    arguments.positional.push_back(evaluate_filter(*expr.parts[0], input));
  } else {
    arguments.positional.push_back(evaluate(*expr.parts[0]));
  }
  evaluate_arguments(expr.call, arguments);
  line_ = expr.line;
  return call_filter(expr.word, arguments);
}

Value Interpreter::call_filter(std::string_view name, Arguments& arguments) {
  const Depth depth(*this);
  const Builtin filter = find_filter(name);
  if (filter == nullptr) {
    fail(is_unsupported_filter(name) ? "the filter '" + std::string(name) + "' is not supported"
                                     : "No filter named '" + printable(name) + "' found.");
  }
  return filter(*this, arguments);
}

Value Interpreter::evaluate_test(const Expr& expr) {
  Arguments arguments;
  arguments.positional.push_back(evaluate(*expr.parts[0]));
  evaluate_arguments(expr.call, arguments);
  line_ = expr.line;
  return Value::boolean(call_test(expr.word, arguments));
}

bool Interpreter::call_test(std::string_view name, Arguments& arguments) {
  const Depth depth(*this);
  const Builtin test = find_test(name);
  if (test == nullptr) fail("No test named '" + printable(name) + "' found.");
  return truthy(test(*this, arguments));
}

Value Interpreter::evaluate_concat(const Expr& expr) {
  TextBuilder out(budget_);
  for (const ExprPtr& part : expr.parts) out.write(evaluate(*part));
  return out.take();
}

bool Interpreter::compare(const std::string& op, const Value& a, const Value& b) {
  if (op == "==") return equal(budget_, a, b);
  if (op == "!=") return !equal(budget_, a, b);
  if (op == "<") return less(budget_, a, b, "<");
  if (op == "<=") return less_equal(budget_, a, b, "<=");
  if (op == ">") return less(budget_, b, a, ">");
  if (op == ">=") return less_equal(budget_, b, a, ">=");
  return contains(budget_, b, a) == (op == "in");
}

Value Interpreter::evaluate_compare(const Expr& expr) {
  Value left = evaluate(*expr.parts[0]);
  for (std::size_t i = 0; i < expr.words.size(); ++i) {
    Value right = evaluate(*expr.parts[i + 1]);
    line_ = expr.line;
    if (!compare(expr.words[i], left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interpreter::evaluate_conditional(const Expr& expr) {
  if (truthy(evaluate(*expr.parts[0]))) return evaluate(*expr.parts[1]);
  if (expr.parts[2]) return evaluate(*expr.parts[2]);
  return Value::undefined(budget_, "the inline if-expression on line " + std::to_string(expr.line) +
                                       " evaluated to false and no else section was defined.");
}

}  // namespace specdec::chat
