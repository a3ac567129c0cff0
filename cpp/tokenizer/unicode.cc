#include "tokenizer/unicode.h"

#include <algorithm>
#include <iterator>
#include <memory>

namespace specdec {
namespace {

constexpr std::uint32_t kRanges[] = {
#include "tokenizer/unicode_table.inc"
};
constexpr std::uint32_t kEnd = 0x110000;

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

std::uint8_t char_class(std::uint32_t code_point) noexcept {
  static const FlatTable table;
  return code_point < kEnd ? table.classes[code_point] : 0;
}

}  // namespace specdec
