// Text without special tokens -> tokens: the interface of the two tokenizer kinds.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "base/token.h"
#include "tokenizer/spm_text.h"
#include "tokenizer/vocab_data.h"
#include "tokenizer/vocabulary.h"

namespace specdec {

class TextEncoder {
 public:
  virtual ~TextEncoder() = default;

  // Appends the tokens of `text`, which is any bytes, under 2^28 of them, and prepared if
  // spm_text() is there. Thread-safe.
  virtual void encode(std::string_view text, std::vector<TokenId>& out) const = 0;
  // How texts are prepared; nullptr: not at all.
  [[nodiscard]] virtual const SpmText* spm_text() const noexcept { return nullptr; }
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
