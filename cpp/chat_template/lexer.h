// A template's text cut into tokens, with jinja's rules for white space around blocks
// (trim_blocks and lstrip_blocks are on, as in transformers).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "chat_template/budget.h"
#include "chat_template/text.h"

namespace specdec::chat {

enum class TokenKind : std::uint8_t {
  kData,           // text outside of blocks
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,  // of the template
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 0;
  std::string word;  // name, operator or number
  Text text;         // data or string
};

inline constexpr std::size_t kMaxTemplateBytes = std::size_t{1} << 20;
inline constexpr std::size_t kMaxTokens = 50'000;

// Ends with kEnd. Throws TemplateError(kSyntax or kLimit) with the line.
[[nodiscard]] std::vector<Token> cut_template(Budget& budget, std::string_view source);

[[noreturn]] void fail_syntax(const std::string& message, int line);

}  // namespace specdec::chat
