// Character classes for pre-tokenizers, from a generated table (tools/gen_unicode_table.py).
#pragma once

#include <cstdint>

namespace specdec {

// Class bits of a code point; letters are \p{L}, numbers \p{N} and so on.
enum CharClass : std::uint8_t {
  kLetter = 1,
  kNumber = 2,
  kPunctuation = 4,
  kSymbol = 8,
  kMark = 16,
  kSpace = 32,   // the White_Space property, as \s
  kUpper = 64,   // Lu or Lt
  kLower = 128,  // Ll
};

// 0 for code points that are unassigned or above U+10FFFF.
[[nodiscard]] std::uint8_t char_class(std::uint32_t code_point);

// \w as Unicode's regular expressions have it: letters, marks, decimal and letter numbers,
// connectors such as "_", joiners and circled letters.
[[nodiscard]] bool is_word_char(std::uint32_t code_point) noexcept;

}  // namespace specdec
