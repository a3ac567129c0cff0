#include "chat_template/text.h"

namespace specdec::chat {
namespace {

// Length of the well-formed sequence at the beginning, surrogates included; 0: none.
std::size_t sequence_length(std::string_view bytes, Unit& code) noexcept {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char first = at(0);
  const std::size_t n = first < 0x80   ? 1
                        : first < 0xc2 ? 0
                        : first < 0xe0 ? 2
                        : first < 0xf0 ? 3
                        : first < 0xf5 ? 4
                                       : 0;
  if (n == 0 || bytes.size() < n) return 0;
  if (n == 1) {
    code = first;
    return 1;
  }
  Unit value = first & (0x7fU >> n);
  for (std::size_t i = 1; i < n; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
    value = value << 6 | (at(i) & 0x3fU);
  }
  constexpr Unit kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (value < kSmallest[n] || value > 0x10ffff) return 0;
  code = value;
  return n;
}

}  // namespace

Text decode_text(std::string_view bytes, Unit mark) {
  Text out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    Unit code = 0;
    std::size_t n = sequence_length(bytes, code);
    if (n == 0) {
      code = kRawByte + static_cast<unsigned char>(bytes[0]);
      n = 1;
    }
    out.push_back(code | mark);
    bytes.remove_prefix(n);
  }
  return out;
}

void append_bytes(std::string& out, TextView text) {
  for (const Unit unit : text) {
    const Unit code = code_of(unit);
    const auto low = [&](int shift) { return static_cast<char>(0x80 | (code >> shift & 0x3f)); };
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else if (code < 0x800) {
      out += {static_cast<char>(0xc0 | code >> 6), low(0)};
    } else if (code < 0x10000) {
      out += {static_cast<char>(0xe0 | code >> 12), low(6), low(0)};
    } else if (code < kRawByte) {
      out += {static_cast<char>(0xf0 | code >> 18), low(12), low(6), low(0)};
    } else {
      out += static_cast<char>(code - kRawByte);
    }
  }
}

std::string to_bytes(TextView text) {
  std::string out;
  out.reserve(text.size());
  append_bytes(out, text);
  return out;
}

void append_ascii(Text& out, std::string_view ascii, Unit mark) {
  for (const char c : ascii) out.push_back(static_cast<unsigned char>(c) | mark);
}

Text ascii_text(std::string_view ascii, Unit mark) {
  Text out;
  append_ascii(out, ascii, mark);
  return out;
}

bool equals_ascii(TextView text, std::string_view ascii) noexcept {
  if (text.size() != ascii.size()) return false;
  for (std::size_t i = 0; i < ascii.size(); ++i) {
    if (code_of(text[i]) != static_cast<unsigned char>(ascii[i])) return false;
  }
  return true;
}

}  // namespace specdec::chat
