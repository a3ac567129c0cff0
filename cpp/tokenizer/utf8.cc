#include "tokenizer/utf8.h"

#include <algorithm>

namespace specdec {
namespace {

// Bytes of the sequence that `lead` begins; 0 when it begins none.
std::uint32_t sequence_length(unsigned char lead) noexcept {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  if (lead >= 0xf0 && lead <= 0xf4) return 4;
  return 0;
}

// The second byte has a narrower range after some leads: no overlong forms, no surrogates, nothing
// above U+10FFFF (Unicode, table 3-7).
bool is_second_byte(unsigned char lead, unsigned char byte) noexcept {
  switch (lead) {
    case 0xe0:
      return byte >= 0xa0 && byte <= 0xbf;
    case 0xed:
      return byte >= 0x80 && byte <= 0x9f;
    case 0xf0:
      return byte >= 0x90 && byte <= 0xbf;
    case 0xf4:
      return byte >= 0x80 && byte <= 0x8f;
    default:
      return (byte & 0xc0) == 0x80;
  }
}

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

}  // namespace

Utf8Char decode_utf8(std::string_view text, std::size_t position) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[position + i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const std::uint32_t length = sequence_length(lead);
  if (length == 0 || text.size() - position < length || !is_second_byte(lead, byte(1))) {
    return {kInvalidByte, 1};
  }
  std::uint32_t code_point = lead & (0x7fu >> length);
  for (std::uint32_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {kInvalidByte, 1};
    code_point = code_point << 6 | (byte(i) & 0x3fu);
  }
  return {code_point, length};
}

bool is_byte_of_text(unsigned char byte) noexcept {
  constexpr std::string_view kControls = "\t\n\f\r\x1b";
  if (byte < 0x20) return kControls.find(static_cast<char>(byte)) != std::string_view::npos;
  // 0xc0, 0xc1 and 0xf5 on begin nothing; 0xf1 and 0xf2 begin planes 4 to 11, which are empty.
  if (byte == 0x7f || byte == 0xc0 || byte == 0xc1) return false;
  return byte < 0xf1 || byte == 0xf3 || byte == 0xf4;
}

void append_utf8(std::string& out, std::uint32_t code_point) {
  const auto put = [&](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xc0 | code_point >> 6);
    put(0x80 | (code_point & 0x3f));
  } else if (code_point < 0x10000) {
    put(0xe0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3f));
    put(0x80 | (code_point & 0x3f));
  } else {
    put(0xf0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3f));
    put(0x80 | (code_point >> 6 & 0x3f));
    put(0x80 | (code_point & 0x3f));
  }
}

bool Utf8Assembler::continues(unsigned char byte) const noexcept {
  if (n_held_ == 1) return is_second_byte(static_cast<unsigned char>(held_[0]), byte);
  return (byte & 0xc0) == 0x80;
}

void Utf8Assembler::push(std::string_view bytes, std::string& out) {
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (n_held_ > 0 && !continues(byte)) flush(out);
    if (n_held_ == 0) {
      n_wanted_ = sequence_length(byte);
      if (n_wanted_ == 1) {
        out += c;
        continue;
      }
      if (n_wanted_ == 0) {
        out += kReplacement;
        continue;
      }
    }
    held_[n_held_++] = c;
    if (n_held_ == n_wanted_) {
      out.append(held_, n_held_);
      n_held_ = 0;
    }
  }
}

void Utf8Assembler::flush(std::string& out) {
  if (n_held_ > 0) out += kReplacement;
  n_held_ = 0;
}

std::string replace_invalid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  Utf8Assembler assembler;
  assembler.push(bytes, out);
  assembler.flush(out);
  return out;
}

}  // namespace specdec
