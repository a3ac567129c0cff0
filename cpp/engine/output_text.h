// From emitted tokens to text that can be shown.
#pragma once

#include <string>

#include "base/token.h"
#include "decode/request.h"
#include "decode/stop.h"
#include "engine/session.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace specdec {

// Bytes of each token; special tokens have none unless they are to be shown.
class OutputPieces final : public TokenPieces {
 public:
  OutputPieces(const Tokenizer& tokenizer, bool render_special)
      : tokenizer_(tokenizer), render_special_(render_special) {}
  [[nodiscard]] std::string piece(TokenId token) const override;

 private:
  const Tokenizer& tokenizer_;
  bool render_special_;
};

// Turns the decoding loop's chunks, which are bytes, into chunks of valid UTF-8.
class OutputText {
 public:
  explicit OutputText(const TokenPieces& pieces) : pieces_(pieces) {}

  [[nodiscard]] OutputChunk push(const Chunk& chunk);
  // The end: an unfinished character becomes U+FFFD.
  [[nodiscard]] OutputChunk flush();

 private:
  const TokenPieces& pieces_;
  Utf8Assembler assembler_;
};

}  // namespace specdec
