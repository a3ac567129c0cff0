#include "tokenizer/unicode.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <span>

namespace specdec {
namespace {

constexpr std::uint32_t kRanges[] = {
#include "tokenizer/unicode_table.inc"
};
constexpr std::uint32_t kEnd = 0x110000;

struct Range {
  std::uint32_t first;
  std::uint32_t last;
};
constexpr Range kOtherNumbers[] = {
#include "tokenizer/other_numbers.inc"
};
// Connectors, joiners, and the circled letters, which are symbols by class.
constexpr Range kOtherWordChars[] = {
    {0x5f, 0x5f},       {0x200c, 0x200d},   {0x203f, 0x2040},   {0x2054, 0x2054},
    {0x24b6, 0x24e9},   {0xfe33, 0xfe34},   {0xfe4d, 0xfe4f},   {0xff3f, 0xff3f},
    {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189},
};

bool is_in(std::span<const Range> ranges, std::uint32_t code_point) {
  return std::any_of(ranges.begin(), ranges.end(), [code_point](const Range& range) {
    return code_point >= range.first && code_point <= range.last;
  });
}

// The ranges spread over one byte per code point, so that a lookup is one load.
struct FlatTable {
  std::unique_ptr<std::uint8_t[]> classes = std::make_unique<std::uint8_t[]>(kEnd);

  FlatTable() {
    for (std::size_t i = 0; i < std::size(kRanges); ++i) {
      const std::uint32_t first = kRanges[i] >> 8;
      const std::uint32_t last = i + 1 < std::size(kRanges) ? kRanges[i + 1] >> 8 : kEnd;
      std::fill(classes.get() + first, classes.get() + last,
                static_cast<std::uint8_t>(kRanges[i] & 0xff));
    }
  }
};

}  // namespace

std::uint8_t char_class(std::uint32_t code_point) {
  static const FlatTable table;
  return code_point < kEnd ? table.classes[code_point] : 0;
}

bool is_word_char(std::uint32_t code_point) noexcept {
  const unsigned classes = char_class(code_point);
  if ((classes & (kLetter | kMark)) != 0) return true;
  if ((classes & kNumber) != 0) return !is_in(kOtherNumbers, code_point);
  return is_in(kOtherWordChars, code_point);
}

}  // namespace specdec
