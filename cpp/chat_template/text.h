// Strings of templates: code points, each of which knows who wrote it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace specdec::chat {

// A code point, with kCallers set when the caller gave it: a message, a tool, an argument. What the
// template and the model file spell has no mark. The mark travels with the character through every
// operation, so no way of cutting and joining text can lose it.
using Unit = char32_t;
inline constexpr Unit kCallers = 0x80000000;
// Bytes that are not UTF-8 are 0x110000 + the byte and come out as they went in.
inline constexpr Unit kRawByte = 0x110000;

constexpr Unit code_of(Unit unit) noexcept { return unit & ~kCallers; }
constexpr bool is_callers(Unit unit) noexcept { return (unit & kCallers) != 0; }

// Compares characters, whoever wrote them.
struct UnitTraits : std::char_traits<char32_t> {
  static constexpr bool eq(Unit a, Unit b) noexcept { return code_of(a) == code_of(b); }
  static constexpr bool lt(Unit a, Unit b) noexcept { return code_of(a) < code_of(b); }
  static constexpr int compare(const Unit* a, const Unit* b, std::size_t n) noexcept {
    for (std::size_t i = 0; i < n; ++i) {
      if (!eq(a[i], b[i])) return lt(a[i], b[i]) ? -1 : 1;
    }
    return 0;
  }
  static constexpr const Unit* find(const Unit* a, std::size_t n, const Unit& wanted) noexcept {
    for (std::size_t i = 0; i < n; ++i) {
      if (eq(a[i], wanted)) return a + i;
    }
    return nullptr;
  }
};

using Text = std::basic_string<Unit, UnitTraits>;
using TextView = std::basic_string_view<Unit, UnitTraits>;

// UTF-8 to characters; `mark` is 0 or kCallers. Surrogates are taken as characters, as Python has
// them.
[[nodiscard]] Text decode_text(std::string_view bytes, Unit mark = 0);
void append_bytes(std::string& out, TextView text);
[[nodiscard]] std::string to_bytes(TextView text);
void append_ascii(Text& out, std::string_view ascii, Unit mark = 0);
[[nodiscard]] Text ascii_text(std::string_view ascii, Unit mark = 0);
[[nodiscard]] bool equals_ascii(TextView text, std::string_view ascii) noexcept;

}  // namespace specdec::chat
