#include "chat_template/check_names.h"

#include "chat_template/builtins.h"
#include "chat_template/lexer.h"

namespace specdec::chat {
namespace {

// `lenient`: this may not be reached.
void check(const Expr* expr, bool lenient) {
  if (expr == nullptr) return;
  lenient |= expr->kind == ExprKind::kConditional;
  if (!lenient && expr->kind == ExprKind::kFilter && find_filter(expr->word) == nullptr &&
      !is_unsupported_filter(expr->word)) {
    fail_syntax("No filter named '" + printable(expr->word) + "'.", expr->line);
  }
  if (!lenient && expr->kind == ExprKind::kTest && find_test(expr->word) == nullptr) {
    fail_syntax("No test named '" + printable(expr->word) + "'.", expr->line);
  }
  for (const ExprPtr& part : expr->parts) check(part.get(), lenient);
  for (const ExprPtr& part : expr->call.positional) check(part.get(), lenient);
  for (const auto& [name, part] : expr->call.named) check(part.get(), lenient);
  check(expr->call.more_positional.get(), lenient);
  check(expr->call.more_named.get(), lenient);
}

void check(const Body& body, bool lenient) {
  for (const auto& stmt : body) {
    const bool branch = stmt->kind == StmtKind::kIf;
    const bool outside = lenient || branch;
    for (const ExprPtr& expr : stmt->exprs) check(expr.get(), outside);
    // Blocks with a scope of their own start anew.
    for (const Body& inner : stmt->bodies) check(inner, branch);
    if (stmt->macro) {
      for (const ExprPtr& expr : stmt->macro->defaults) check(expr.get(), false);
      check(stmt->macro->body, false);
    }
  }
}

}  // namespace

void check_names(const Body& body) { check(body, false); }

}  // namespace specdec::chat
