// Tokens to a tree, with the grammar of jinja 3.1, loop controls and `generation` blocks.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "chat_template/ast.h"
#include "chat_template/lexer.h"
#include "chat_template/names.h"

namespace specdec::chat {

// How deep expressions and blocks may nest.
inline constexpr int kMaxNesting = 300;

class Parser {
 public:
  Parser(Budget& budget, Names& names, std::string_view source)
      : budget_(budget), names_(names), tokens_(cut_template(budget, source)) {}

  // Throws TemplateError(kSyntax or kLimit).
  [[nodiscard]] Body parse_template();

 private:
  // Counts how deep the parser is in itself.
  class Nesting {
   public:
    explicit Nesting(Parser& parser);
    ~Nesting() { --parser_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    Parser& parser_;
  };

  // parser.cc
  [[nodiscard]] const Token& current() const { return tokens_[at_]; }
  [[nodiscard]] const Token& next();
  [[nodiscard]] const Token& look() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  [[nodiscard]] bool at_operator(std::string_view word) const;
  [[nodiscard]] bool at_name(std::string_view word) const;
  [[nodiscard]] bool skip_operator(std::string_view word);
  [[nodiscard]] bool skip_name(std::string_view word);
  void expect_operator(std::string_view word);
  void expect_name(std::string_view word);
  void expect(TokenKind kind, const char* what);
  [[nodiscard]] std::string expect_any_name();
  [[noreturn]] void fail_here(const std::string& message) const;
  [[nodiscard]] std::string describe_current() const;

  // parse_expression.cc
  [[nodiscard]] ExprPtr make(ExprKind kind) const;
  [[nodiscard]] ExprPtr make(ExprKind kind, ExprPtr first, ExprPtr second = nullptr);
  // Knows its depth, which is bounded; to be called when its parts are complete.
  [[nodiscard]] ExprPtr finished(ExprPtr node) const;
  [[nodiscard]] ExprPtr expression(bool with_condition = true);
  [[nodiscard]] ExprPtr conditional();
  [[nodiscard]] ExprPtr or_expression();
  [[nodiscard]] ExprPtr and_expression();
  [[nodiscard]] ExprPtr not_expression();
  [[nodiscard]] ExprPtr comparison();
  [[nodiscard]] ExprPtr sum();
  [[nodiscard]] ExprPtr concatenation();
  [[nodiscard]] ExprPtr product();
  [[nodiscard]] ExprPtr power();
  [[nodiscard]] ExprPtr unary(bool with_filter = true);
  [[nodiscard]] ExprPtr primary();
  [[nodiscard]] ExprPtr number();
  [[nodiscard]] ExprPtr list();
  [[nodiscard]] ExprPtr dict();

  // parse_postfix.cc
  [[nodiscard]] ExprPtr postfix(ExprPtr node);
  [[nodiscard]] ExprPtr subscript(ExprPtr node);
  [[nodiscard]] ExprPtr subscribed();
  [[nodiscard]] ExprPtr filters_and_tests(ExprPtr node);
  [[nodiscard]] ExprPtr filters(ExprPtr node, bool starts_inline = false);
  [[nodiscard]] ExprPtr test(ExprPtr node);
  [[nodiscard]] ExprPtr call(ExprPtr node);
  void call_arguments(CallArguments& arguments);
  // One expression or, with commas, a tuple; up to the end of the block or `end_name`.
  [[nodiscard]] ExprPtr tuple(bool with_condition = true, std::string_view end_name = {},
                              bool in_parentheses = false);
  [[nodiscard]] bool at_tuple_end(std::string_view end_name) const;

  // parse_statement.cc
  [[nodiscard]] Body body(std::initializer_list<std::string_view> ends, bool drop_end);
  [[nodiscard]] Body sub_parse(std::initializer_list<std::string_view> ends);
  void statement(Body& out);
  [[nodiscard]] std::unique_ptr<Stmt> make_stmt(StmtKind kind) const;
  void if_statement(Body& out);
  void for_statement(Body& out);
  void set_statement(Body& out);
  void macro_statement(Body& out);
  void call_statement(Body& out);
  void filter_statement(Body& out);
  void with_statement(Body& out);
  void scope_statement(Body& out, std::string_view end);
  void loop_control(Body& out, StmtKind kind);
  [[nodiscard]] Target target(bool with_attributes, std::string_view end_name = {});
  [[nodiscard]] Target single_target(bool with_attributes);
  void signature(MacroDefinition& macro);
  [[nodiscard]] Body macro_body(MacroDefinition& macro, std::string_view end);

  Budget& budget_;
  Names& names_;
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int nesting_ = 0;
  int loops_ = 0;  // around this point, in this macro
  std::vector<MacroDefinition*> open_macros_;
};

}  // namespace specdec::chat
