#include "chat_template/parser.h"

namespace specdec::chat {

Parser::Nesting::Nesting(Parser& parser) : parser_(parser) {
  parser.budget_.step();
  if (++parser.nesting_ > kMaxNesting) {
    throw TemplateError(Problem::kLimit, "it nests more than " + std::to_string(kMaxNesting) +
                                             " deep (line " +
                                             std::to_string(parser.current().line) + ")");
  }
}

Body Parser::parse_template() {
  Body out = sub_parse({});
  if (current().kind != TokenKind::kEnd) fail_here("unexpected " + describe_current());
  return out;
}

const Token& Parser::next() {
  const Token& token = current();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool Parser::at_operator(std::string_view word) const {
  return current().kind == TokenKind::kOperator && current().word == word;
}

bool Parser::at_name(std::string_view word) const {
  return current().kind == TokenKind::kName && current().word == word;
}

bool Parser::skip_operator(std::string_view word) {
  if (!at_operator(word)) return false;
  (void)next();
  return true;
}

bool Parser::skip_name(std::string_view word) {
  if (!at_name(word)) return false;
  (void)next();
  return true;
}

void Parser::expect_operator(std::string_view word) {
  if (!skip_operator(word)) {
    fail_here("expected '" + std::string(word) + "', got " + describe_current());
  }
}

void Parser::expect_name(std::string_view word) {
  if (!skip_name(word)) {
    fail_here("expected '" + std::string(word) + "', got " + describe_current());
  }
}

void Parser::expect(TokenKind kind, const char* what) {
  if (current().kind != kind) {
    fail_here(std::string("expected ") + what + ", got " + describe_current());
  }
  (void)next();
}

std::string Parser::expect_any_name() {
  if (current().kind != TokenKind::kName) fail_here("expected a name, got " + describe_current());
  return next().word;
}

void Parser::fail_here(const std::string& message) const { fail_syntax(message, current().line); }

std::string Parser::describe_current() const {
  switch (current().kind) {
    case TokenKind::kData:
      return "text";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "end of statement block";
    case TokenKind::kVariableBegin:
      return "'{{'";
    case TokenKind::kVariableEnd:
      return "end of print statement";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return "'" + printable(current().word, 60) + "'";
  }
}

}  // namespace specdec::chat
