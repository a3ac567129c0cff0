// Expressions, from the loosest binding to the tightest.
#include <algorithm>
#include <charconv>

#include "base/read_real.h"
#include "chat_template/parser.h"

namespace specdec::chat {

ExprPtr Parser::make(ExprKind kind) const {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->line = current().line;
  return node;
}

ExprPtr Parser::make(ExprKind kind, ExprPtr first, ExprPtr second) {
  ExprPtr node = make(kind);
  node->line = first ? first->line : node->line;
  node->parts.push_back(std::move(first));
  if (second) node->parts.push_back(std::move(second));
  return finished(std::move(node));
}

ExprPtr Parser::finished(ExprPtr node) const {
  budget_.step();
  const auto take = [&](const ExprPtr& part) {
    if (part) node->depth = std::max(node->depth, part->depth + 1);
  };
  for (const ExprPtr& part : node->parts) take(part);
  for (const ExprPtr& part : node->call.positional) take(part);
  for (const auto& [name, part] : node->call.named) take(part);
  take(node->call.more_positional);
  take(node->call.more_named);
  if (node->depth > kMaxNesting) {
    throw TemplateError(Problem::kLimit, "an expression is more than " +
                                             std::to_string(kMaxNesting) + " deep (line " +
                                             std::to_string(node->line) + ")");
  }
  return node;
}

ExprPtr Parser::expression(bool with_condition) {
  const Nesting nesting(*this);
  return with_condition ? conditional() : or_expression();
}

ExprPtr Parser::conditional() {
  ExprPtr node = or_expression();
  while (skip_name("if")) {
    ExprPtr condition = or_expression();
    ExprPtr whole = make(ExprKind::kConditional, std::move(condition), std::move(node));
    whole->parts.push_back(skip_name("else") ? expression() : nullptr);
    node = finished(std::move(whole));
  }
  return node;
}

ExprPtr Parser::or_expression() {
  ExprPtr left = and_expression();
  while (skip_name("or")) left = make(ExprKind::kOr, std::move(left), and_expression());
  return left;
}

ExprPtr Parser::and_expression() {
  ExprPtr left = not_expression();
  while (skip_name("and")) left = make(ExprKind::kAnd, std::move(left), not_expression());
  return left;
}

ExprPtr Parser::not_expression() {
  const Nesting nesting(*this);
  if (skip_name("not")) return make(ExprKind::kNot, not_expression());
  return comparison();
}

ExprPtr Parser::comparison() {
  ExprPtr first = sum();
  ExprPtr chain;
  while (true) {
    std::string word;
    if (current().kind == TokenKind::kOperator) {
      for (const char* candidate : {"==", "!=", "<", "<=", ">", ">="}) {
        if (current().word == candidate) word = candidate;
      }
    } else if (at_name("in")) {
      word = "in";
    } else if (at_name("not") && look().kind == TokenKind::kName && look().word == "in") {
      (void)next();
      word = "not in";
    }
    if (word.empty()) break;
    (void)next();
    if (!chain) chain = make(ExprKind::kCompare, std::move(first));
    chain->words.push_back(std::move(word));
    chain->parts.push_back(sum());
  }
  return chain ? finished(std::move(chain)) : std::move(first);
}

ExprPtr Parser::sum() {
  ExprPtr left = concatenation();
  while (at_operator("+") || at_operator("-")) {
    std::string word = next().word;
    left = make(ExprKind::kBinary, std::move(left), concatenation());
    left->word = std::move(word);
  }
  return left;
}

ExprPtr Parser::concatenation() {
  ExprPtr first = product();
  if (!at_operator("~")) return first;
  ExprPtr node = make(ExprKind::kConcat, std::move(first));
  while (skip_operator("~")) node->parts.push_back(product());
  return finished(std::move(node));
}

ExprPtr Parser::product() {
  ExprPtr left = power();
  while (at_operator("*") || at_operator("/") || at_operator("//") || at_operator("%")) {
    std::string word = next().word;
    left = make(ExprKind::kBinary, std::move(left), power());
    left->word = std::move(word);
  }
  return left;
}

ExprPtr Parser::power() {
  ExprPtr left = unary();
  while (skip_operator("**")) {
    left = make(ExprKind::kBinary, std::move(left), unary());
    left->word = "**";
  }
  return left;
}

ExprPtr Parser::unary(bool with_filter) {
  const Nesting nesting(*this);
  ExprPtr node;
  if (at_operator("-") || at_operator("+")) {
    std::string word = next().word;
    node = make(ExprKind::kUnary, unary(false));
    node->word = std::move(word);
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filter ? filters_and_tests(std::move(node)) : std::move(node);
}

ExprPtr Parser::primary() {
  const Token& token = current();
  if (token.kind == TokenKind::kName) {
    ExprPtr node = make(ExprKind::kConst);
    const std::string& word = token.word;
    if (word == "true" || word == "True") {
      node->value = Value::boolean(true);
    } else if (word == "false" || word == "False") {
      node->value = Value::boolean(false);
    } else if (word != "none" && word != "None") {
      node->kind = ExprKind::kName;
      node->name = names_.id(word);
      node->word = word;
      for (MacroDefinition* macro : open_macros_) {
        macro->uses_caller |= word == "caller";
        macro->uses_kwargs |= word == "kwargs";
        macro->uses_varargs |= word == "varargs";
      }
    }
    (void)next();
    return node;
  }
  if (token.kind == TokenKind::kString) {
    ExprPtr node = make(ExprKind::kConst);
    Text text;
    while (current().kind == TokenKind::kString) text += next().text;
    node->value = Value::text(budget_, std::move(text));
    return node;
  }
  if (token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat) return number();
  if (skip_operator("(")) {
    ExprPtr node = tuple(true, {}, true);
    expect_operator(")");
    return node;
  }
  if (at_operator("[")) return list();
  if (at_operator("{")) return dict();
  fail_here("unexpected " + describe_current());
}

ExprPtr Parser::number() {
  ExprPtr node = make(ExprKind::kConst);
  const Token& token = next();
  const char* first = token.word.data();
  const char* last = first + token.word.size();
  if (token.kind == TokenKind::kFloat) {
    double real = 0;
    const auto end = read_real(first, last, real);
    if (end.ec != std::errc() || end.ptr != last) {
      fail_syntax("the number " + printable(token.word, 40) + " is out of range", token.line);
    }
    node->value = Value::real(real);
    return node;
  }
  int base = 10;
  if (token.word.size() > 2 && token.word[0] == '0') {
    const char letter = static_cast<char>(token.word[1] | 0x20);
    base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
    if (base != 10) first += 2;
  }
  std::int64_t whole = 0;
  const auto end = std::from_chars(first, last, whole, base);
  if (end.ec != std::errc() || end.ptr != last) {
    fail_syntax("the number " + printable(token.word, 40) + " does not fit into 64 bits",
                token.line);
  }
  node->value = Value::integer(whole);
  return node;
}

ExprPtr Parser::list() {
  ExprPtr node = make(ExprKind::kList);
  expect_operator("[");
  while (!at_operator("]")) {
    if (!node->parts.empty()) expect_operator(",");
    if (at_operator("]")) break;
    node->parts.push_back(expression());
  }
  expect_operator("]");
  return finished(std::move(node));
}

ExprPtr Parser::dict() {
  ExprPtr node = make(ExprKind::kDict);
  expect_operator("{");
  while (!at_operator("}")) {
    if (!node->parts.empty()) expect_operator(",");
    if (at_operator("}")) break;
    node->parts.push_back(expression());
    expect_operator(":");
    node->parts.push_back(expression());
  }
  expect_operator("}");
  return finished(std::move(node));
}

}  // namespace specdec::chat
