// What the regular expressions of several pre-tokenizers share, each part as a function.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tokenizer/unicode.h"

namespace specdec::split {

using Position = std::uint32_t;

// Part of a text; a matcher sees nothing outside of it, as a regex that is run on the piece alone.
struct Segment {
  const CharText& text;
  Position end;

  [[nodiscard]] bool has(Position i) const { return i < end; }
  [[nodiscard]] std::uint32_t at(Position i) const { return i < end ? text.code_points[i] : 0; }
  // Is there a character at i, in one of the classes?
  [[nodiscard]] bool is(Position i, unsigned classes) const {
    return i < end && (text.classes[i] & classes) != 0;
  }
  // Is there a character at i, in none of the classes?
  [[nodiscard]] bool is_not(Position i, unsigned classes) const {
    return i < end && (text.classes[i] & classes) == 0;
  }
  [[nodiscard]] bool is_newline(Position i) const { return at(i) == '\n' || at(i) == '\r'; }
  [[nodiscard]] Position skip(Position i, unsigned classes) const {
    while (is(i, classes)) ++i;
    return i;
  }
  [[nodiscard]] Position skip_not(Position i, unsigned classes) const {
    while (is_not(i, classes)) ++i;
    return i;
  }
};

inline constexpr unsigned kLetterOrMark = kLetter | kMark;

// Every matcher gives the end of the match at i, or i itself when there is none.

// 's 't 're 've 'm 'll 'd; with `any_case` as (?i:...), where U+017F is an s.
inline Position match_contraction(const Segment& s, Position i, bool any_case) {
  if (s.at(i) != '\'') return i;
  const auto letter = [&](Position at) {
    const std::uint32_t c = s.at(at);
    if (!any_case) return c;
    if (c == 0x17f) return std::uint32_t{'s'};
    return c >= 'A' && c <= 'Z' ? c + 32 : c;
  };
  const std::uint32_t first = letter(i + 1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return i + 2;
  const std::uint32_t second = letter(i + 2);
  if ((first == 'r' || first == 'v') && second == 'e') return i + 3;
  if (first == 'l' && second == 'l') return i + 3;
  return i;
}

// \s+(?!\S)|\s+
inline Position match_spaces(const Segment& s, Position i) {
  const Position run = s.skip(i, kSpace);
  return run < s.end && run > i + 1 ? run - 1 : run;
}

// \s*[\r\n]+
inline Position match_lines(const Segment& s, Position i) {
  Position run = s.skip(i, kSpace);
  while (run > i && !s.is_newline(run - 1)) --run;
  return run;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
inline Position match_gpt2(const Segment& s, Position i) {
  if (const Position end = match_contraction(s, i, false); end != i) return end;
  const Position word = s.at(i) == ' ' ? i + 1 : i;
  if (s.is(word, kLetter)) return s.skip(word, kLetter);
  if (s.is(word, kNumber)) return s.skip(word, kNumber);
  if (s.is_not(word, kSpace | kLetter | kNumber)) {
    return s.skip_not(word, kSpace | kLetter | kNumber);
  }
  return match_spaces(s, i);
}

// \p{N}{1,max}
inline Position match_digits(const Segment& s, Position i, Position max) {
  const Position stop = i + std::min(max, s.end - i);
  while (i < stop && s.is(i, kNumber)) ++i;
  return i;
}

// " ?[^\s\p{L}\p{N}]+[\r\n]*", with more classes to leave out and, if `slash`, [\r\n/]* at the end.
inline Position match_punctuation(const Segment& s, Position i, unsigned not_classes, bool slash) {
  Position end = s.at(i) == ' ' ? i + 1 : i;
  if (!s.is_not(end, not_classes)) return i;
  end = s.skip_not(end, not_classes);
  while (s.is_newline(end) || (slash && s.at(end) == '/')) ++end;
  return end;
}

// (?i:'s|...)|[^\r\n\p{L}\p{N}]?WORD+|\p{N}{1,max}| ?[^\s WORD
// \p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
template <unsigned kWord, Position kMaxDigits>
Position match_llama3(const Segment& s, Position i) {
  if (const Position end = match_contraction(s, i, true); end != i) return end;
  if (s.is_not(i, kLetter | kNumber) && !s.is_newline(i) && s.is(i + 1, kWord)) {
    return s.skip(i + 1, kWord);
  }
  if (s.is(i, kWord)) return s.skip(i, kWord);
  if (s.is(i, kNumber)) return match_digits(s, i, kMaxDigits);
  if (const Position end = match_punctuation(s, i, kSpace | kWord | kNumber, false); end != i) {
    return end;
  }
  if (const Position end = match_lines(s, i); end != i) return end;
  return match_spaces(s, i);
}

// [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
inline bool is_upper_like(const Segment& s, Position i) {
  return s.is(i, kLetterOrMark) && !s.is(i, kLower);
}

// [\p{Ll}\p{Lm}\p{Lo}\p{M}]
inline bool is_lower_like(const Segment& s, Position i) {
  return s.is(i, kLetterOrMark) && !s.is(i, kUpper);
}

// UPPER*LOWER+ from i on, where letters without case and marks are both.
inline Position match_upper_then_lower(const Segment& s, Position i) {
  Position upper_end = i;
  while (is_upper_like(s, upper_end)) ++upper_end;
  Position lower = upper_end;
  if (!is_lower_like(s, lower)) {
    // Give back to the last character that may also count as lower.
    while (lower > i && !is_lower_like(s, lower - 1)) --lower;
    if (lower == i) return i;
    return lower;
  }
  while (is_lower_like(s, lower)) ++lower;
  return lower;
}

// UPPER+LOWER* from i on.
inline Position match_upper_plus(const Segment& s, Position i) {
  if (!is_upper_like(s, i)) return i;
  while (is_upper_like(s, i)) ++i;
  while (is_lower_like(s, i)) ++i;
  return i;
}

// [^\r\n\p{L}\p{N}]?UPPER*LOWER+(?i:'s|...)?|[^\r\n\p{L}\p{N}]?UPPER+LOWER*(?i:'s|...)?|\p{N}{1,max}|
//  ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
template <Position kMaxDigits, bool kContractions>
Position match_cased(const Segment& s, Position i) {
  const bool prefix = s.is_not(i, kLetter | kNumber) && !s.is_newline(i);
  Position word = i;
  if (prefix && (word = match_upper_then_lower(s, i + 1)) == i + 1) word = i;
  if (word == i) word = match_upper_then_lower(s, i);
  if (word == i && prefix && (word = match_upper_plus(s, i + 1)) == i + 1) word = i;
  if (word == i) word = match_upper_plus(s, i);
  if (word != i) return kContractions ? match_contraction(s, word, true) : word;
  if (s.is(i, kNumber)) return match_digits(s, i, kMaxDigits);
  if (const Position end = match_punctuation(s, i, kSpace | kLetter | kNumber, true); end != i) {
    return end;
  }
  if (const Position end = match_lines(s, i); end != i) return end;
  return match_spaces(s, i);
}

}  // namespace specdec::split
