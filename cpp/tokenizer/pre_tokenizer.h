// Splits text into the words that byte-pair merging works within, as the regular expressions of the
// original tokenizers do. The scanners are written by hand: linear, no recursion, no regex library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace specdec {

enum class SplitRule {
  kDefault,
  kGpt2,
  kLlama3,
  kQwen2,
  kQwen35,
  kSmolLm,
  kFalcon,
  kDeepSeekLlm,
  kDeepSeekCoder,
  kDeepSeek3,
  kGpt4o,
  kTekken,
  kBloom,
  kViking,
};

// What the value of tokenizer.ggml.pre says.
struct PreTokenizer {
  std::string_view name;
  SplitRule rule;
  bool ignore_merges;  // a word that is a token as a whole is not merged
  bool add_bos;        // when the file does not say
};

// nullptr when the name is unknown.
[[nodiscard]] const PreTokenizer* find_pre_tokenizer(std::string_view name);
// "default, gpt-2, ..."
[[nodiscard]] std::string known_pre_tokenizers();

// A text as code points; bytes that are not UTF-8 stand for themselves, in no class.
struct CharText {
  std::vector<std::uint32_t> code_points;
  std::vector<std::uint8_t> classes;   // CharClass bits
  std::vector<std::uint32_t> offsets;  // in bytes, one more than characters

  void assign(std::string_view text);  // text.size() < 2^32
  [[nodiscard]] std::uint32_t size() const {
    return static_cast<std::uint32_t>(code_points.size());
  }
};

// Buffers that a caller keeps between calls.
struct SplitScratch {
  CharText chars;
  std::vector<std::uint32_t> cuts;
};

// Appends to `word_ends` the end, in bytes, of every word of `text`: together the words are the
// text.
void split_words(SplitRule rule, std::string_view text, SplitScratch& scratch,
                 std::vector<std::uint32_t>& word_ends);

}  // namespace specdec
