#include "cli/line_editor/char_width.h"

#include <algorithm>
#include <iterator>

#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace specdec::cli {
namespace {

struct Range {
  std::uint32_t first, last;
};

constexpr Range kWide[] = {
#include "cli/line_editor/wide_table.inc"
};

bool wide(std::uint32_t code_point) noexcept {
  const Range* found =
      std::upper_bound(std::begin(kWide), std::end(kWide), code_point,
                       [](std::uint32_t value, const Range& range) { return value < range.first; });
  return found != std::begin(kWide) && code_point <= std::prev(found)->last;
}

bool joins(std::uint32_t code_point) noexcept {
  return code_point != kInvalidByte && code_point >= 0x300 && char_width(code_point) == 0;
}

}  // namespace

int char_width(std::uint32_t code_point) noexcept {
  if (code_point < 0x300) return code_point == 0xad ? 0 : 1;
  if ((char_class(code_point) & kMark) != 0) return 0;
  // Zero-width space and joiners, directions, Hangul vowels and finals that join a syllable
  if ((code_point >= 0x200b && code_point <= 0x200f) ||
      (code_point >= 0x202a && code_point <= 0x202e) ||
      (code_point >= 0x2060 && code_point <= 0x206f) ||
      (code_point >= 0x1160 && code_point <= 0x11ff) || code_point == 0xfeff) {
    return 0;
  }
  return wide(code_point) ? 2 : 1;
}

Cluster cluster_at(std::string_view text, std::size_t position) noexcept {
  const Utf8Char base = decode_utf8(text, position);
  Cluster out{base.n_bytes, base.code_point == kInvalidByte ? 1 : char_width(base.code_point)};
  if (base.code_point == '\n' || base.code_point == '\t') return out;
  while (position + out.n_bytes < text.size()) {
    const Utf8Char next = decode_utf8(text, position + out.n_bytes);
    if (!joins(next.code_point)) break;
    out.n_bytes += next.n_bytes;
  }
  return out;
}

std::size_t cluster_before(std::string_view text, std::size_t position) noexcept {
  while (position > 0) {
    do {
      --position;
    } while (position > 0 && (static_cast<unsigned char>(text[position]) & 0xc0) == 0x80);
    if (!joins(decode_utf8(text, position).code_point)) break;
    // Marks with nothing to join: at the start, or after a line break
    if (position > 0 && (text[position - 1] == '\n' || text[position - 1] == '\t')) break;
  }
  return position;
}

int text_width(std::string_view text) noexcept {
  int width = 0;
  for (std::size_t i = 0; i < text.size();) {
    const Cluster cluster = cluster_at(text, i);
    width += cluster.width;
    i += cluster.n_bytes;
  }
  return width;
}

}  // namespace specdec::cli
