#include "chat_template/unicode.h"

#include <algorithm>
#include <iterator>
#include <span>

namespace specdec::chat {
namespace {

struct CaseRun {
  char32_t first, last;
  std::int32_t step, difference;
};

struct CaseExpansion {
  char32_t from;
  char32_t to[3];  // 0: fewer
};

#include "chat_template/unicode_table.inc"

constexpr int kPropertyBits = 11;
constexpr Unit kCapitalSigma = 0x3a3, kFinalSigma = 0x3c2, kSmallSigma = 0x3c3;

void append_mapped(Text& out, Unit unit, std::span<const CaseRun> runs,
                   std::span<const CaseExpansion> expansions) {
  const Unit code = code_of(unit), mark = unit & kCallers;
  const auto expansion =
      std::lower_bound(expansions.begin(), expansions.end(), code,
                       [](const CaseExpansion& entry, Unit wanted) { return entry.from < wanted; });
  if (expansion != expansions.end() && expansion->from == code) {
    for (const char32_t c : expansion->to) {
      if (c != 0) out.push_back(c | mark);
    }
    return;
  }
  const auto run =
      std::lower_bound(runs.begin(), runs.end(), code,
                       [](const CaseRun& entry, Unit wanted) { return entry.last < wanted; });
  if (run != runs.end() && run->first <= code &&
      (code - run->first) % static_cast<Unit>(run->step) == 0) {
    out.push_back((code + static_cast<Unit>(run->difference)) | mark);
  } else {
    out.push_back(unit);
  }
}

// Whether a cased letter stands next, characters without case ignored.
template <typename Iterator>
bool cased_follows(Iterator at, Iterator end) {
  while (at != end && has_property(*at, kCaseIgnorable)) ++at;
  return at != end && has_property(*at, kCased);
}

}  // namespace

std::uint32_t properties_of(Unit unit) noexcept {
  const Unit code = code_of(unit);
  if (code >= kRawByte) return 0;
  // Each entry orders by its code point, the property bits below it are all ones at most.
  const std::uint32_t wanted = code << kPropertyBits | ((1U << kPropertyBits) - 1);
  const auto after = std::upper_bound(std::begin(kProperties), std::end(kProperties), wanted);
  return *std::prev(after) & ((1U << kPropertyBits) - 1);
}

int decimal_value(Unit unit) noexcept {
  const Unit code = code_of(unit);
  if (code < 0x80) return code >= '0' && code <= '9' ? static_cast<int>(code - '0') : -1;
  const auto after = std::upper_bound(std::begin(kZeros), std::end(kZeros), code);
  if (after == std::begin(kZeros)) return -1;
  const Unit value = code - *std::prev(after);
  return value < 10 ? static_cast<int>(value) : -1;
}

void append_upper(Text& out, Unit unit) {
  const Unit code = code_of(unit);
  if (code < 0x80) {
    out.push_back(code >= 'a' && code <= 'z' ? unit - ('a' - 'A') : unit);
  } else {
    append_mapped(out, unit, kUpperRuns, kUpperExpansions);
  }
}

void append_title(Text& out, Unit unit) {
  if (code_of(unit) < 0x80) {
    append_upper(out, unit);
  } else {
    append_mapped(out, unit, kTitleRuns, kTitleExpansions);
  }
}

void append_lower(Text& out, TextView text, std::size_t at) {
  const Unit unit = text[at], code = code_of(unit);
  if (code < 0x80) {
    out.push_back(code >= 'A' && code <= 'Z' ? unit + ('a' - 'A') : unit);
  } else if (code == kCapitalSigma) {
    const bool before = cased_follows(
        std::make_reverse_iterator(text.begin() + static_cast<std::ptrdiff_t>(at)), text.rend());
    const bool after =
        cased_follows(text.begin() + static_cast<std::ptrdiff_t>(at) + 1, text.end());
    out.push_back((before && !after ? kFinalSigma : kSmallSigma) | (unit & kCallers));
  } else {
    append_mapped(out, unit, kLowerRuns, kLowerExpansions);
  }
}

Text upper(TextView text) {
  Text out;
  out.reserve(text.size());
  for (const Unit unit : text) append_upper(out, unit);
  return out;
}

Text lower(TextView text) {
  Text out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) append_lower(out, text, i);
  return out;
}

}  // namespace specdec::chat
