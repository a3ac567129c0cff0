// Text without special tokens -> tokens: the interface of the two tokenizer kinds.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "base/token.h"
#include "tokenizer/vocab_data.h"
#include "tokenizer/vocabulary.h"

namespace specdec {

class TextEncoder {
 public:
  virtual ~TextEncoder() = default;

  // Appends the tokens of `text`, which is any bytes, under 2^28 of them. `starts` says that the
  // text stands at the beginning of the prompt or behind a special token. `poll` (may be empty) is
  // called now and then while a long text is read; it may throw. Thread-safe.
  virtual void encode(std::string_view text, bool starts, const std::function<void()>& poll,
                      std::vector<TokenId>& out) const = 0;
  // Does encode() put a space in front of a text that `starts`?
  [[nodiscard]] virtual bool adds_space_prefix() const noexcept { return false; }
};

// Byte-level BPE ("gpt2"). Throws Error(kModelFormat: missing_key bad_merge limit) or
// Error(kUnsupported: tokenizer_pre). Both keep a reference to the vocabulary and may add warnings
// to it.
[[nodiscard]] std::unique_ptr<const TextEncoder> make_bpe_encoder(const VocabData& data,
                                                                  Vocabulary& vocabulary);
// SentencePiece-style ("llama"). Throws Error(kModelFormat: missing_key bad_vocab limit).
[[nodiscard]] std::unique_ptr<const TextEncoder> make_spm_encoder(const VocabData& data,
                                                                  Vocabulary& vocabulary);

}  // namespace specdec
