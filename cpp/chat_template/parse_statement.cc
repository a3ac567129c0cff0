// Statements: what stands between {% and %}.
#include "chat_template/parser.h"

namespace specdec::chat {

std::unique_ptr<Stmt> Parser::make_stmt(StmtKind kind) const {
  auto node = std::make_unique<Stmt>();
  node->kind = kind;
  node->line = current().line;
  return node;
}

// From the end of the opening tag to one of `ends`, which is dropped or left.
Body Parser::body(std::initializer_list<std::string_view> ends, bool drop_end) {
  (void)skip_operator(":");
  expect(TokenKind::kBlockEnd, "the end of the block");
  Body out = sub_parse(ends);
  if (current().kind == TokenKind::kEnd) {
    fail_here("Unexpected end of template, looking for '" + std::string(*ends.begin()) + "'");
  }
  if (drop_end) (void)next();
  return out;
}

Body Parser::sub_parse(std::initializer_list<std::string_view> ends) {
  const Nesting nesting(*this);
  Body out;
  while (current().kind != TokenKind::kEnd) {
    budget_.step();
    if (current().kind == TokenKind::kData) {
      auto node = make_stmt(StmtKind::kData);
      node->text = Value::text(budget_, next().text);
      out.push_back(std::move(node));
    } else if (current().kind == TokenKind::kVariableBegin) {
      auto node = make_stmt(StmtKind::kOutput);
      (void)next();
      node->exprs.push_back(tuple());
      expect(TokenKind::kVariableEnd, "end of print statement");
      out.push_back(std::move(node));
    } else if (current().kind == TokenKind::kBlockBegin) {
      (void)next();
      for (const std::string_view end : ends) {
        if (at_name(end)) return out;
      }
      statement(out);
      expect(TokenKind::kBlockEnd, "end of statement block");
    } else {
      fail_here("unexpected " + describe_current());
    }
  }
  return out;
}

void Parser::statement(Body& out) {
  if (current().kind != TokenKind::kName) fail_here("tag name expected");
  const std::string word = current().word;
  if (word == "for") return for_statement(out);
  if (word == "if") return if_statement(out);
  if (word == "set") return set_statement(out);
  if (word == "macro") return macro_statement(out);
  if (word == "call") return call_statement(out);
  if (word == "filter") return filter_statement(out);
  if (word == "with") return with_statement(out);
  if (word == "generation") return scope_statement(out, "endgeneration");
  if (word == "break") return loop_control(out, StmtKind::kBreak);
  if (word == "continue") return loop_control(out, StmtKind::kContinue);
  if (word == "print") {
    (void)next();
    auto node = make_stmt(StmtKind::kOutput);
    while (current().kind != TokenKind::kBlockEnd) {
      if (!node->exprs.empty()) expect_operator(",");
      node->exprs.push_back(expression());
    }
    out.push_back(std::move(node));
    return;
  }
  if (word == "autoescape") {
    (void)next();
    const ExprPtr on = expression();
    if (on->kind != ExprKind::kConst || truthy(on->value)) {
      fail_here("autoescape is not supported");
    }
    return scope_statement(out, "endautoescape");
  }
  for (const char* other : {"block", "extends", "include", "import", "from"}) {
    if (word == other) fail_here("'" + word + "' is not supported: a chat template stands alone");
  }
  fail_here("Encountered unknown tag '" + printable(word, 60) + "'");
}

void Parser::if_statement(Body& out) {
  auto node = make_stmt(StmtKind::kIf);
  do {
    (void)next();  // if, elif
    node->exprs.push_back(tuple(false));
    node->bodies.push_back(body({"endif", "elif", "else"}, false));
  } while (at_name("elif"));
  if (skip_name("else")) node->bodies.push_back(body({"endif"}, false));
  expect_name("endif");
  out.push_back(std::move(node));
}

void Parser::for_statement(Body& out) {
  auto node = make_stmt(StmtKind::kFor);
  (void)next();
  node->targets.push_back(target(false, "in"));
  expect_name("in");
  node->exprs.push_back(tuple(false, "recursive"));
  node->exprs.push_back(skip_name("if") ? expression() : nullptr);
  node->recursive = skip_name("recursive");
  ++loops_;
  node->bodies.push_back(body({"endfor", "else"}, false));
  --loops_;
  if (skip_name("else")) node->bodies.push_back(body({"endfor"}, false));
  expect_name("endfor");
  out.push_back(std::move(node));
}

void Parser::set_statement(Body& out) {
  (void)next();
  auto node = make_stmt(StmtKind::kSet);
  node->targets.push_back(target(true));
  if (skip_operator("=")) {
    node->exprs.push_back(tuple());
  } else {
    node->kind = StmtKind::kSetBlock;
    node->exprs.push_back(at_operator("|") ? filters(nullptr) : nullptr);
    node->bodies.push_back(body({"endset"}, true));
  }
  out.push_back(std::move(node));
}

void Parser::signature(MacroDefinition& macro) {
  expect_operator("(");
  while (!at_operator(")")) {
    if (!macro.parameters.empty()) expect_operator(",");
    std::string name = expect_any_name();
    macro.parameters.push_back(names_.id(name));
    macro.parameter_names.push_back(std::move(name));
    if (skip_operator("=")) {
      macro.defaults.push_back(expression());
    } else if (!macro.defaults.empty()) {
      fail_here("non-default argument follows default argument");
    }
  }
  expect_operator(")");
}

Body Parser::macro_body(MacroDefinition& macro, std::string_view end) {
  const int loops = loops_;
  loops_ = 0;
  open_macros_.push_back(&macro);
  Body out = body({end}, true);
  open_macros_.pop_back();
  loops_ = loops;
  return out;
}

void Parser::macro_statement(Body& out) {
  auto node = make_stmt(StmtKind::kMacro);
  (void)next();
  node->macro = std::make_unique<MacroDefinition>();
  node->macro->name = expect_any_name();
  node->name = names_.id(node->macro->name);
  signature(*node->macro);
  node->macro->body = macro_body(*node->macro, "endmacro");
  out.push_back(std::move(node));
}

void Parser::call_statement(Body& out) {
  auto node = make_stmt(StmtKind::kCall);
  (void)next();
  node->macro = std::make_unique<MacroDefinition>();
  node->macro->name = "caller";
  if (at_operator("(")) signature(*node->macro);
  node->exprs.push_back(expression());
  if (node->exprs[0]->kind != ExprKind::kCall) fail_here("expected call");
  node->macro->body = macro_body(*node->macro, "endcall");
  out.push_back(std::move(node));
}

void Parser::filter_statement(Body& out) {
  auto node = make_stmt(StmtKind::kFilterBlock);
  (void)next();
  node->exprs.push_back(filters(nullptr, true));
  node->bodies.push_back(body({"endfilter"}, true));
  out.push_back(std::move(node));
}

void Parser::with_statement(Body& out) {
  auto node = make_stmt(StmtKind::kWith);
  (void)next();
  while (current().kind != TokenKind::kBlockEnd) {
    if (!node->targets.empty()) expect_operator(",");
    node->targets.push_back(target(false));
    expect_operator("=");
    node->exprs.push_back(expression());
  }
  node->bodies.push_back(body({"endwith"}, true));
  out.push_back(std::move(node));
}

void Parser::scope_statement(Body& out, std::string_view end) {
  auto node = make_stmt(StmtKind::kScope);
  if (end == "endgeneration") {
    (void)next();
    // jinja calls its body as a function.
    const int loops = loops_;
    loops_ = 0;
    node->bodies.push_back(body({end}, true));
    loops_ = loops;
  } else {
    node->bodies.push_back(body({end}, true));
  }
  out.push_back(std::move(node));
}

void Parser::loop_control(Body& out, StmtKind kind) {
  if (loops_ == 0) fail_here("'" + current().word + "' outside of a loop");
  out.push_back(make_stmt(kind));
  (void)next();
}

Target Parser::single_target(bool with_attributes) {
  const Nesting nesting(*this);
  if (skip_operator("(")) {
    Target inner = target(with_attributes);
    expect_operator(")");
    return inner;
  }
  Target result;
  const std::string name = expect_any_name();
  for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
    if (name == constant) fail_here("can't assign to '" + name + "'");
  }
  result.name = names_.id(name);
  if (with_attributes && skip_operator(".")) {
    result.attribute = Value::text(budget_, decode_text(expect_any_name()));
  }
  return result;
}

Target Parser::target(bool with_attributes, std::string_view end_name) {
  Target result = single_target(with_attributes);
  if (!at_operator(",")) return result;
  Target several;
  several.is_tuple = true;
  several.parts.push_back(std::move(result));
  while (skip_operator(",")) {
    if (at_tuple_end(end_name) || at_operator("=")) break;
    several.parts.push_back(single_target(with_attributes));
  }
  return several;
}

}  // namespace specdec::chat
