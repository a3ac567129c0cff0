// What follows an expression: subscripts, calls, filters and tests; and tuples.
#include "chat_template/parser.h"

namespace specdec::chat {

ExprPtr Parser::postfix(ExprPtr node) {
  while (true) {
    if (at_operator(".") || at_operator("[")) {
      node = subscript(std::move(node));
    } else if (at_operator("(")) {
      node = call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr Parser::subscript(ExprPtr node) {
  if (skip_operator(".")) {
    if (current().kind == TokenKind::kName) {
      node = make(ExprKind::kAttribute, std::move(node));
      node->word = next().word;
      node->value = Value::text(budget_, decode_text(node->word));
      return node;
    }
    if (current().kind != TokenKind::kInteger) fail_here("expected name or number");
    ExprPtr index = number();
    return make(ExprKind::kSubscript, std::move(node), std::move(index));
  }
  expect_operator("[");
  std::vector<ExprPtr> parts;
  while (!at_operator("]")) {
    if (!parts.empty()) expect_operator(",");
    parts.push_back(subscribed());
  }
  expect_operator("]");
  if (parts.empty()) fail_here("expected a subscript");
  if (parts.size() == 1) return make(ExprKind::kSubscript, std::move(node), std::move(parts[0]));
  ExprPtr several = make(ExprKind::kTuple);
  several->parts = std::move(parts);
  return make(ExprKind::kSubscript, std::move(node), finished(std::move(several)));
}

// An index, or start:stop:step with any of them left out.
ExprPtr Parser::subscribed() {
  std::vector<ExprPtr> parts;
  if (at_operator(":")) {
    parts.emplace_back();
  } else {
    ExprPtr index = expression();
    if (!at_operator(":")) return index;
    parts.push_back(std::move(index));
  }
  expect_operator(":");
  for (int i = 0; i < 2; ++i) {
    const bool missing = at_operator(":") || at_operator("]") || at_operator(",");
    parts.push_back(missing ? nullptr : expression());
    if (i == 0 && !skip_operator(":")) {
      parts.emplace_back();
      break;
    }
  }
  ExprPtr node = make(ExprKind::kSlice);
  node->parts = std::move(parts);
  return finished(std::move(node));
}

ExprPtr Parser::filters_and_tests(ExprPtr node) {
  while (true) {
    if (at_operator("|")) {
      node = filters(std::move(node));
    } else if (at_name("is")) {
      node = test(std::move(node));
    } else if (at_operator("(")) {
      node = call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr Parser::filters(ExprPtr node, bool starts_inline) {
  while (at_operator("|") || starts_inline) {
    if (!starts_inline) (void)next();
    starts_inline = false;
    ExprPtr filter = make(ExprKind::kFilter);
    filter->word = expect_any_name();
    while (skip_operator(".")) filter->word += "." + expect_any_name();
    filter->parts.push_back(std::move(node));
    if (at_operator("(")) call_arguments(filter->call);
    node = finished(std::move(filter));
  }
  return node;
}

ExprPtr Parser::test(ExprPtr node) {
  expect_name("is");
  const bool negated = skip_name("not");
  ExprPtr test = make(ExprKind::kTest);
  test->word = expect_any_name();
  while (skip_operator(".")) test->word += "." + expect_any_name();
  test->parts.push_back(std::move(node));
  const TokenKind kind = current().kind;
  if (at_operator("(")) {
    call_arguments(test->call);
  } else if ((kind == TokenKind::kName && !at_name("else") && !at_name("or") && !at_name("and")) ||
             kind == TokenKind::kString || kind == TokenKind::kInteger ||
             kind == TokenKind::kFloat || at_operator("[") || at_operator("{")) {
    if (at_name("is")) fail_here("You cannot chain multiple tests with is");
    const Nesting nesting(*this);
    test->call.positional.push_back(postfix(primary()));
  }
  test = finished(std::move(test));
  return negated ? make(ExprKind::kNot, std::move(test)) : std::move(test);
}

ExprPtr Parser::call(ExprPtr node) {
  ExprPtr whole = make(ExprKind::kCall, std::move(node));
  call_arguments(whole->call);
  return finished(std::move(whole));
}

void Parser::call_arguments(CallArguments& arguments) {
  expect_operator("(");
  bool is_first = true;
  const auto require = [&](bool allowed) {
    if (!allowed) fail_here("invalid syntax for function call expression");
  };
  while (!at_operator(")")) {
    if (!is_first) {
      expect_operator(",");
      if (at_operator(")")) break;
    }
    is_first = false;
    if (skip_operator("*")) {
      require(!arguments.more_positional && !arguments.more_named);
      arguments.more_positional = expression();
    } else if (skip_operator("**")) {
      require(!arguments.more_named);
      arguments.more_named = expression();
    } else if (current().kind == TokenKind::kName && look().kind == TokenKind::kOperator &&
               look().word == "=") {
      require(!arguments.more_named);
      std::string name = next().word;
      (void)next();
      arguments.named.emplace_back(std::move(name), expression());
    } else {
      require(!arguments.more_positional && !arguments.more_named && arguments.named.empty());
      arguments.positional.push_back(expression());
    }
  }
  expect_operator(")");
}

ExprPtr Parser::tuple(bool with_condition, std::string_view end_name, bool in_parentheses) {
  const Nesting nesting(*this);
  const int line = current().line;
  std::vector<ExprPtr> parts;
  bool is_tuple = false;
  while (true) {
    if (!parts.empty()) expect_operator(",");
    if (at_tuple_end(end_name)) break;
    parts.push_back(expression(with_condition));
    if (!at_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !parts.empty()) return std::move(parts[0]);
  if (!is_tuple && !in_parentheses) {
    fail_here("Expected an expression, got " + describe_current());
  }
  ExprPtr node = make(ExprKind::kTuple);
  node->line = line;
  node->parts = std::move(parts);
  return finished(std::move(node));
}

bool Parser::at_tuple_end(std::string_view end_name) const {
  return current().kind == TokenKind::kVariableEnd || current().kind == TokenKind::kBlockEnd ||
         at_operator(")") || (!end_name.empty() && at_name(end_name));
}

}  // namespace specdec::chat
