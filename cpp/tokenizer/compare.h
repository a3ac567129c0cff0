// Can a draft model's tokens be used by a target model?
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace specdec {

// Token ids must mean the same text in both models. One vocabulary may be longer than the other
// (padded embedding rows): the draft must then not propose tokens from n_shared on, which the
// caller masks.
struct VocabDifference {
  bool compatible = false;
  TokenId first_difference = -1;  // the first id whose text differs and that is an ordinary token
  std::string target_text;        // its texts as spelt in the vocabularies
  std::string draft_text;
  TokenId n_differences = 0;  // all such ids
  TokenId target_size = 0;
  TokenId draft_size = 0;
  TokenId n_shared = 0;  // ids [0, n_shared) exist in both
  // Differences that do not forbid the pair: sizes, special tokens, BOS, EOS.
  std::vector<std::string> notes;

  // One line for people.
  [[nodiscard]] std::string message() const;
};

[[nodiscard]] VocabDifference compare_vocabularies(const Tokenizer& target, const Tokenizer& draft);

}  // namespace specdec
