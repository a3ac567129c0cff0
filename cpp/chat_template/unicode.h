// Python's str.isalpha(), str.upper() and their like, from a generated table
// (tools/gen_chat_unicode.py).
#pragma once

#include <cstdint>

#include "chat_template/text.h"

namespace specdec::chat {

enum CharProperty : std::uint32_t {
  kAlpha = 1,
  kDecimal = 2,
  kDigit = 4,
  kNumeric = 8,
  kPrintable = 16,
  kLowerCase = 32,
  kUpperCase = 64,
  kTitleCase = 128,
  kSpace = 256,
  kCaseIgnorable = 512,
  kNamePart = 1024,
};
inline constexpr std::uint32_t kAlphanumeric = kAlpha | kDecimal | kDigit | kNumeric;
inline constexpr std::uint32_t kCased = kLowerCase | kUpperCase | kTitleCase;

// Of a unit, marked or not.
[[nodiscard]] std::uint32_t properties_of(Unit unit) noexcept;
[[nodiscard]] inline bool has_property(Unit unit, std::uint32_t any_of) noexcept {
  return (properties_of(unit) & any_of) != 0;
}
[[nodiscard]] inline bool is_space(Unit unit) noexcept { return has_property(unit, kSpace); }
// 0 to 9; -1: no decimal digit.
[[nodiscard]] int decimal_value(Unit unit) noexcept;

// One character may become up to three; they keep its mark.
void append_upper(Text& out, Unit unit);
void append_title(Text& out, Unit unit);
// As str.lower() does with text[at]: the Greek sigma at the end of a word is another one.
void append_lower(Text& out, TextView text, std::size_t at);

[[nodiscard]] Text upper(TextView text);
[[nodiscard]] Text lower(TextView text);

}  // namespace specdec::chat
