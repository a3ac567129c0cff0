#include "grammar/syntax.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace specdec::grammar {
namespace {

constexpr char32_t kLastCode = 0x10FFFF;
constexpr CodeRange kSurrogates{0xD800, 0xDFFF};

struct Utf8Form {
  char32_t last;    // of the characters with so many bytes
  unsigned prefix;  // of the first byte
};
constexpr Utf8Form kForms[] = {{0x7F, 0x00}, {0x7FF, 0xC0}, {0xFFFF, 0xE0}, {kLastCode, 0xF0}};

// Bytes of all characters first..last of one length, from byte `i` of `n` on.
Part utf8_bytes(Syntax& syntax, std::span<const unsigned> first, std::span<const unsigned> last) {
  if (first.size() == 1) return syntax.bytes(byte_range(first[0], last[0]));
  const auto rest_first = first.subspan(1), rest_last = last.subspan(1);
  const std::vector<unsigned> lowest(rest_first.size(), 0x80), highest(rest_first.size(), 0xBF);
  const auto with = [&](unsigned a, unsigned b, std::span<const unsigned> from,
                        std::span<const unsigned> to) {
    return syntax.sequence({syntax.bytes(byte_range(a, b)), utf8_bytes(syntax, from, to)});
  };
  if (first[0] == last[0]) return with(first[0], first[0], rest_first, rest_last);
  std::vector<Part> parts;
  unsigned low = first[0], high = last[0];
  if (!std::ranges::equal(rest_first, lowest))
    parts.push_back(with(low, low, rest_first, highest)), ++low;
  if (!std::ranges::equal(rest_last, highest))
    parts.push_back(with(high, high, lowest, rest_last)), --high;
  if (low <= high) parts.push_back(with(low, high, lowest, highest));
  return syntax.choice(std::move(parts));
}

std::vector<unsigned> encode(char32_t code, std::size_t n_bytes) {
  std::vector<unsigned> bytes(n_bytes);
  for (std::size_t i = n_bytes; i-- > 1; code >>= 6) bytes[i] = 0x80U | (code & 0x3FU);
  bytes[0] = kForms[n_bytes - 1].prefix | code;
  return bytes;
}

}  // namespace

ByteSet byte_range(unsigned first, unsigned last) {
  ByteSet set;
  for (unsigned byte = first; byte <= last; ++byte) set.set(byte);
  return set;
}

ByteSet byte_set(std::string_view bytes) {
  ByteSet set;
  for (const char c : bytes) set.set(static_cast<unsigned char>(c));
  return set;
}

std::vector<CodeRange> sorted_ranges(std::vector<CodeRange> ranges) {
  std::ranges::sort(ranges);
  std::vector<CodeRange> out;
  for (const CodeRange& range : ranges) {
    if (!out.empty() && range.first <= out.back().second + 1) {
      out.back().second = std::max(out.back().second, range.second);
    } else {
      out.push_back(range);
    }
  }
  return out;
}

std::vector<CodeRange> complement(std::vector<CodeRange> ranges) {
  std::vector<CodeRange> out;
  char32_t next = 0;
  for (const auto& [first, last] : sorted_ranges(std::move(ranges))) {
    if (first > next) out.emplace_back(next, first - 1);
    next = last + 1;
  }
  if (next <= kLastCode) out.emplace_back(next, kLastCode);
  return out;
}

std::u32string code_points(std::string_view utf8, std::optional<std::size_t>* wrong) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(utf8[i]); };
  std::u32string out;
  for (std::size_t i = 0; i < utf8.size();) {
    const unsigned lead = byte(i);
    const std::size_t n = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    char32_t code = n == 1 ? lead : lead & (0xFFU >> (n + 1));
    bool is_one = (n == 1 || (lead >= 0xC0 && lead < 0xF8)) && i + n <= utf8.size();
    for (std::size_t k = 1; k < n && is_one; ++k) {
      is_one = (byte(i + k) & 0xC0U) == 0x80;
      code = code << 6 | (byte(i + k) & 0x3FU);
    }
    const char32_t shorter = n == 1 ? 0 : kForms[n - 2].last + 1;  // than n bytes, below this
    is_one = is_one && code >= shorter && code <= kLastCode &&
             (code < kSurrogates.first || code > kSurrogates.second);
    if (!is_one) {
      if (wrong != nullptr && !*wrong) *wrong = i;
      ++i;
      continue;
    }
    out.push_back(code);
    i += n;
  }
  return out;
}

void require_utf8(std::string_view text, const std::string& what) {
  std::optional<std::size_t> wrong;
  (void)code_points(text, &wrong);
  if (wrong) {
    throw_invalid(what + " has bytes that are not UTF-8, the first at byte " +
                  std::to_string(*wrong) + ": expected text in UTF-8");
  }
}

std::optional<char32_t> hexadecimal_code(std::u32string_view text, std::size_t n_digits) {
  constexpr std::u32string_view kDigits = U"0123456789abcdef0123456789ABCDEF";
  if (text.size() < n_digits) return std::nullopt;
  char32_t code = 0;
  for (const char32_t c : text.substr(0, n_digits)) {
    const std::size_t at = kDigits.find(c);
    if (at == std::u32string_view::npos) return std::nullopt;
    code = code << 4 | static_cast<char32_t>(at % 16);
  }
  return code;
}

void append_utf8(std::string& out, char32_t code) {
  std::size_t n = 1;
  while (code > kForms[n - 1].last) ++n;
  for (const unsigned byte : encode(code, n)) out.push_back(static_cast<char>(byte));
}

Part Syntax::add(PartData data) {
  if (parts_.size() >= kMaxParts) {
    throw_invalid("the grammar is too large: over " + std::to_string(kMaxParts) +
                  " parts; lower its counts and lengths");
  }
  parts_.push_back(std::move(data));
  return static_cast<Part>(parts_.size() - 1);
}

Part Syntax::bytes(const ByteSet& set) {
  sets_.push_back(set);
  return add({.kind = PartKind::kBytes, .at = static_cast<std::uint32_t>(sets_.size() - 1)});
}

Part Syntax::text(std::string_view text) {
  std::vector<Part> parts;
  for (const char c : text) parts.push_back(bytes(byte_set({&c, 1})));
  return sequence(std::move(parts));
}

Part Syntax::sequence(std::vector<Part> parts) {
  if (parts.size() == 1) return parts[0];
  return add({.kind = PartKind::kSequence, .parts = std::move(parts)});
}

Part Syntax::choice(std::vector<Part> parts) {
  if (parts.size() == 1) return parts[0];
  return add({.kind = PartKind::kChoice, .parts = std::move(parts)});
}

Part Syntax::repeat(Part part, int low, int high) {
  return add({.kind = PartKind::kRepeat, .low = low, .high = high, .at = part});
}

Part Syntax::characters(std::span<const CodeRange> ranges) {
  std::vector<Part> parts;
  ByteSet single;  // one set for all of ASCII
  for (const auto& [low, high] : sorted_ranges({ranges.begin(), ranges.end()})) {
    const auto add_range = [&](char32_t first, char32_t last) {
      for (std::size_t n = 1; n <= 4; ++n) {
        const char32_t start = n == 1 ? 0 : kForms[n - 2].last + 1;
        const char32_t from = std::max(first, start), to = std::min(last, kForms[n - 1].last);
        if (from > to) continue;
        if (n == 1) {
          single |= byte_range(from, to);
        } else {
          parts.push_back(utf8_bytes(*this, encode(from, n), encode(to, n)));
        }
      }
    };
    if (low < kSurrogates.first)
      add_range(low, std::min(high, static_cast<char32_t>(kSurrogates.first - 1)));
    if (high > kSurrogates.second)
      add_range(std::max(low, static_cast<char32_t>(kSurrogates.second + 1)),
                std::min(high, kLastCode));
  }
  if (single.any()) parts.push_back(bytes(single));
  return choice(std::move(parts));
}

Rule Syntax::add_rule() {
  rules_.push_back(nothing());
  return static_cast<Rule>(rules_.size() - 1);
}

void Syntax::define(Rule rule, Part part) { rules_[rule] = part; }

Part Syntax::call(Rule rule) { return add({.kind = PartKind::kRule, .at = rule}); }

}  // namespace specdec::grammar
