// UTF-8 reading that never fails, and the replacement of what is not UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace specdec {

// Stands for a byte that is not part of a well-formed UTF-8 sequence.
inline constexpr std::uint32_t kInvalidByte = 0xffffffff;

struct Utf8Char {
  std::uint32_t code_point;  // kInvalidByte: one byte that is not UTF-8
  std::uint32_t n_bytes;     // 1 to 4
};

// The character at `position` < text.size(). Overlong forms, surrogates and values above U+10FFFF
// are not UTF-8.
[[nodiscard]] Utf8Char decode_utf8(std::string_view text, std::size_t position) noexcept;

// Whether text that people write can hold the byte: it is UTF-8 of planes with characters (0 to 3,
// 14 and 16 among them) and no control character but tab, line breaks, form feed and escape.
[[nodiscard]] bool is_byte_of_text(unsigned char byte) noexcept;

void append_utf8(std::string& out, std::uint32_t code_point);

// Turns a stream of bytes into valid UTF-8. Each maximal prefix of a sequence that turns out
// ill-formed becomes one U+FFFD (the WHATWG rule, as bytes.decode("utf-8", "replace") in Python).
// Holds back at most 3 bytes, the beginning of a character whose rest may still come.
class Utf8Assembler {
 public:
  void push(std::string_view bytes, std::string& out);
  // The end of the stream: what was held back cannot become a character any more.
  void flush(std::string& out);
  [[nodiscard]] bool empty() const noexcept { return n_held_ == 0; }

 private:
  [[nodiscard]] bool continues(unsigned char byte) const noexcept;

  char held_[4] = {};
  std::uint32_t n_held_ = 0;
  std::uint32_t n_wanted_ = 0;
};

[[nodiscard]] std::string replace_invalid_utf8(std::string_view bytes);

}  // namespace specdec
