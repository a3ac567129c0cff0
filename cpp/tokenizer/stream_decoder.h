// Tokens -> text piece by piece, for output that is shown while it is generated.
#pragma once

#include <memory>
#include <string>

#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace specdec {

// The pieces of push() and the last one of flush() together are decode() of all tokens. No piece
// ends inside a UTF-8 character: its first bytes are held back until the rest comes, or until it is
// certain that they are not UTF-8. Not thread-safe.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, DecodeOptions options = {});

  [[nodiscard]] std::string push(TokenId token);
  // The end of the text; the decoder is then as new.
  [[nodiscard]] std::string flush();
  // Is nothing held back?
  [[nodiscard]] bool is_complete() const noexcept { return assembler_.empty(); }

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  DecodeOptions options_;
  Utf8Assembler assembler_;
  bool at_start_ = true;  // nothing visible has come yet
};

}  // namespace specdec
