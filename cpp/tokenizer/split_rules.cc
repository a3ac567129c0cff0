#include "tokenizer/split_rules.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "tokenizer/split_match.h"
#include "tokenizer/unicode.h"

namespace specdec {
namespace {

using namespace split;

// [!-/:-@[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|
// \s+(?!\S)|\s+
Position match_deepseek3(const Segment& s, Position i) {
  const auto is_ascii_letter = [&](Position at) {
    const std::uint32_t c = s.at(at) | 0x20;
    return c >= 'a' && c <= 'z';
  };
  if (s.at(i) < 0x80 && s.is(i, kPunctuation | kSymbol) && is_ascii_letter(i + 1)) {
    Position end = i + 1;
    while (is_ascii_letter(end)) ++end;
    return end;
  }
  if (s.is_not(i, kLetter | kPunctuation | kSymbol) && !s.is_newline(i) &&
      s.is(i + 1, kLetterOrMark)) {
    return s.skip(i + 1, kLetterOrMark);
  }
  if (s.is(i, kLetterOrMark)) return s.skip(i, kLetterOrMark);
  Position end = s.at(i) == ' ' ? i + 1 : i;
  if (s.is(end, kPunctuation | kSymbol)) {
    end = s.skip(end, kPunctuation | kSymbol);
    while (s.is_newline(end)) ++end;
    return end;
  }
  if (end = match_lines(s, i); end != i) return end;
  return match_spaces(s, i);
}

struct CodePointRange {
  std::uint32_t first;
  std::uint32_t last;
};

template <std::size_t kCount>
bool is_in(const CodePointRange (&ranges)[kCount], std::uint32_t code_point) {
  const auto after = std::upper_bound(
      std::begin(ranges), std::end(ranges), code_point,
      [](std::uint32_t c, const CodePointRange& range) { return c < range.first; });
  return after != std::begin(ranges) && code_point <= std::prev(after)->last;
}

template <typename Accepts>
Position skip_while(const Segment& s, Position i, Accepts accepts) {
  while (s.has(i) && accepts(s.at(i))) ++i;
  return i;
}

// \s?CLASS+
template <typename Accepts>
Position match_after_space(const Segment& s, Position i, Accepts accepts) {
  const Position word = s.is(i, kSpace) ? i + 1 : i;
  const Position end = skip_while(s, word, accepts);
  if (end != word) return end;
  return skip_while(s, i, accepts);
}

// The cased letters that the DeepSeek LLM tokenizer lists.
constexpr CodePointRange kCasedLetters[] = {
#include "tokenizer/deepseek_letters.inc"
};

constexpr CodePointRange kDeepSeekPunctuation[] = {
    {'!', '/'}, {':', '~'}, {0x2018, 0x201f}, {0x3000, 0x3002}, {0xff01, 0xff0f}, {0xff1a, 0xff5e},
};

Position match_deepseek_letters(const Segment& s, Position i) {
  return match_after_space(s, i, [](std::uint32_t c) { return is_in(kCasedLetters, c); });
}

Position match_deepseek_punctuation(const Segment& s, Position i) {
  return match_after_space(s, i, [](std::uint32_t c) { return is_in(kDeepSeekPunctuation, c); });
}

// The ranges U+0800..U+9FA5 and U+AC00..U+D7FF, a run of them.
Position match_deepseek_cjk(const Segment& s, Position i) {
  return skip_while(s, i, [](std::uint32_t c) {
    return (c >= 0x800 && c <= 0x9fa5) || (c >= 0xac00 && c <= 0xd7ff);
  });
}

// Han, Hiragana and Katakana, a run of them.
Position match_deepseek3_cjk(const Segment& s, Position i) {
  return skip_while(s, i, [](std::uint32_t c) {
    return (c >= 0x4e00 && c <= 0x9fa5) || (c >= 0x3040 && c <= 0x30ff);
  });
}

Position match_newline(const Segment& s, Position i) { return s.is_newline(i) ? i + 1 : i; }

// \s?\p{L}+
Position match_space_letters(const Segment& s, Position i) {
  const Position word = s.is(i, kSpace) ? i + 1 : i;
  const Position end = s.skip(word, kLetter);
  return end != word ? end : i;
}

// \s?\p{P}+
Position match_space_punctuation(const Segment& s, Position i) {
  const Position word = s.is(i, kSpace) ? i + 1 : i;
  const Position end = s.skip(word, kPunctuation);
  return end != word ? end : i;
}

template <Position kMax>
Position match_up_to_digits(const Segment& s, Position i) {
  return match_digits(s, i, kMax);
}

Position match_number(const Segment& s, Position i) { return s.skip(i, kNumber); }

// [0-9][0-9][0-9]
Position match_three_digits(const Segment& s, Position i) {
  for (Position at = i; at < i + 3; ++at) {
    if (s.at(at) < '0' || s.at(at) > '9') return i;
  }
  return i + 3;
}

// [\p{P}$+<=>^~|]+, Falcon also the backquote
template <bool kBackquote>
Position match_marks(const Segment& s, Position i) {
  constexpr std::string_view kMarks = kBackquote ? "$+<=>^~|`" : "$+<=>^~|";
  while (s.is(i, kPunctuation) ||
         (s.has(i) && s.at(i) < 0x80 && kMarks.find(static_cast<char>(s.at(i))) != kMarks.npos)) {
    ++i;
  }
  return i;
}

// " ?[^(\s|.,!?...)]+": the dots stand for the full stops and commas of other scripts
Position match_bloom(const Segment& s, Position i) {
  const auto ends_word = [&](Position at) {
    constexpr std::uint32_t kStops[] = {'(',    ')',    '|',    '.',    ',',   '!',   '?',
                                        0x2026, 0x3002, 0xff0c, 0x3001, 0x964, 0x6d4, 0x60c};
    return !s.has(at) || s.is(at, kSpace) ||
           std::find(std::begin(kStops), std::end(kStops), s.at(at)) != std::end(kStops);
  };
  const Position word = s.at(i) == ' ' ? i + 1 : i;
  Position end = word;
  while (!ends_word(end)) ++end;
  return end != word ? end : i;
}

// Cuts every segment at the matches; what lies between two matches is a word of its own.
template <typename Match>
void cut_at(const CharText& text, std::vector<std::uint32_t>& cuts, Match match) {
  std::vector<std::uint32_t> out;
  out.reserve(cuts.size());
  Position begin = 0;
  for (const Position end : cuts) {
    const Segment segment{text, end};
    Position gap = begin;
    for (Position i = begin; i < end;) {
      const Position match_end = match(segment, i);
      if (match_end == i) {
        ++i;
        continue;
      }
      if (gap < i) out.push_back(i);
      out.push_back(match_end);
      i = gap = match_end;
    }
    if (gap < end) out.push_back(end);
    begin = end;
  }
  cuts.swap(out);
}

// \s+$
void cut_trailing_spaces(const CharText& text, std::vector<std::uint32_t>& cuts) {
  std::vector<std::uint32_t> out;
  Position begin = 0;
  for (const Position end : cuts) {
    Position spaces = end;
    while (spaces > begin && (text.classes[spaces - 1] & kSpace) != 0) --spaces;
    if (spaces > begin && spaces < end) out.push_back(spaces);
    out.push_back(end);
    begin = end;
  }
  cuts.swap(out);
}

}  // namespace

void split_chars(SplitRule rule, const CharText& text, std::vector<std::uint32_t>& cuts) {
  cuts.clear();
  if (text.size() == 0) return;
  cuts.push_back(text.size());
  const auto cut = [&](auto match) { cut_at(text, cuts, match); };
  switch (rule) {
    case SplitRule::kDefault:
      cut(match_marks<false>);
      cut(match_gpt2);
      cut(match_number);
      cut(match_three_digits);
      break;
    case SplitRule::kGpt2:
      cut(match_gpt2);
      break;
    case SplitRule::kLlama3:
      cut(match_llama3<kLetter, 3>);
      break;
    case SplitRule::kQwen2:
      cut(match_llama3<kLetter, 1>);
      break;
    case SplitRule::kQwen35:
      cut(match_llama3<kLetterOrMark, 1>);
      break;
    case SplitRule::kSmolLm:
      cut(match_up_to_digits<1>);
      cut(match_gpt2);
      break;
    case SplitRule::kFalcon:
      cut(match_marks<true>);
      cut(match_gpt2);
      cut(match_three_digits);
      break;
    case SplitRule::kDeepSeekLlm:
      cut(match_newline);
      cut(match_deepseek_letters);
      cut(match_deepseek_punctuation);
      cut_trailing_spaces(text, cuts);
      cut(match_deepseek_cjk);
      cut(match_number);
      break;
    case SplitRule::kDeepSeekCoder:
      cut(match_newline);
      cut(match_space_letters);
      cut(match_space_punctuation);
      cut(match_deepseek_cjk);
      cut(match_up_to_digits<1>);
      break;
    case SplitRule::kDeepSeek3:
      cut(match_up_to_digits<3>);
      cut(match_deepseek3_cjk);
      cut(match_deepseek3);
      break;
    case SplitRule::kGpt4o:
      cut(match_cased<3, true>);
      break;
    case SplitRule::kTekken:
      cut(match_cased<1, false>);
      break;
    case SplitRule::kBloom:
      cut(match_bloom);
      break;
    case SplitRule::kViking:
      cut(match_bloom);
      cut(match_up_to_digits<1>);
      break;
  }
}

}  // namespace specdec
