// Grammars over bytes, put together from parts.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace specdec::grammar {

using ByteSet = std::bitset<256>;
using CodeRange = std::pair<char32_t, char32_t>;  // first and last

inline constexpr int kEndless = -1;
inline constexpr std::size_t kMaxParts = 1U << 19;

// A part of a Syntax.
using Part = std::uint32_t;
using Rule = std::uint32_t;

enum class PartKind : std::uint8_t { kBytes, kSequence, kChoice, kRepeat, kRule };

struct PartData {
  PartKind kind = PartKind::kSequence;
  int low = 0, high = 0;      // of kRepeat; high may be kEndless
  std::uint32_t at = 0;       // set of kBytes, rule of kRule, part of kRepeat
  std::vector<Part> parts{};  // of kSequence and kChoice
};

// Rules may call each other and themselves. Throws Error(kInvalidArgument) when a grammar grows out
// of all bounds.
class Syntax {
 public:
  [[nodiscard]] Part bytes(const ByteSet& set);
  [[nodiscard]] Part text(std::string_view text);
  [[nodiscard]] Part sequence(std::vector<Part> parts);
  [[nodiscard]] Part choice(std::vector<Part> parts);  // of none: nothing at all matches
  [[nodiscard]] Part repeat(Part part, int low, int high);
  [[nodiscard]] Part optional(Part part) { return repeat(part, 0, 1); }
  [[nodiscard]] Part nothing() { return sequence({}); }
  // One character of these, in UTF-8; surrogates are none.
  [[nodiscard]] Part characters(std::span<const CodeRange> ranges);

  [[nodiscard]] Rule add_rule();
  void define(Rule rule, Part part);
  [[nodiscard]] Part call(Rule rule);

  [[nodiscard]] const PartData& part(Part part) const { return parts_[part]; }
  [[nodiscard]] const ByteSet& set(std::uint32_t at) const { return sets_[at]; }
  [[nodiscard]] std::size_t n_rules() const noexcept { return rules_.size(); }
  [[nodiscard]] Part rule(Rule rule) const { return rules_[rule]; }

 private:
  Part add(PartData data);

  std::vector<PartData> parts_;
  std::vector<ByteSet> sets_;
  std::vector<Part> rules_;
};

[[nodiscard]] ByteSet byte_range(unsigned first, unsigned last);
[[nodiscard]] ByteSet byte_set(std::string_view bytes);
// Sorted, without overlaps, and what is in none of them.
[[nodiscard]] std::vector<CodeRange> sorted_ranges(std::vector<CodeRange> ranges);
[[nodiscard]] std::vector<CodeRange> complement(std::vector<CodeRange> ranges);
// Bytes that are no UTF-8 are left out; `wrong` gets the place of the first of them.
[[nodiscard]] std::u32string code_points(std::string_view utf8,
                                         std::optional<std::size_t>* wrong = nullptr);
// Throws Error(kInvalidArgument) that names the first byte which is no UTF-8.
void require_utf8(std::string_view text, const std::string& what);
// Of the first `n_digits` characters, at most 8; empty if they are not all hexadecimal digits.
[[nodiscard]] std::optional<char32_t> hexadecimal_code(std::u32string_view text,
                                                       std::size_t n_digits);
void append_utf8(std::string& out, char32_t code);

}  // namespace specdec::grammar
