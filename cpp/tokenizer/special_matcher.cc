#include "tokenizer/special_matcher.h"

#include <algorithm>

#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace specdec {
namespace {

bool is_inside(std::span<const ByteRange> ranges, std::size_t begin, std::size_t end) {
  const auto after = std::upper_bound(
      ranges.begin(), ranges.end(), begin,
      [](std::size_t position, const ByteRange& range) { return position < range.begin; });
  return after != ranges.begin() && end <= std::prev(after)->end;
}

// Where the character begins that ends at `end` > 0.
std::size_t char_before(std::string_view text, std::size_t end) {
  for (std::size_t n = 1; n <= 4 && n <= end; ++n) {
    const Utf8Char found = decode_utf8(text.substr(0, end), end - n);
    if (found.code_point != kInvalidByte && found.n_bytes == n) return end - n;
  }
  return end - 1;
}

bool is_word_at(std::string_view text, std::size_t position) {
  return is_word_char(decode_utf8(text, position).code_point);
}

// Runs of white space, each looked at once however often they are asked for.
class Spaces {
 public:
  explicit Spaces(std::string_view text) : text_(text) {}

  std::size_t end_of_run(std::size_t from) {
    if (from >= run_begin_ && from < run_end_) return run_end_;
    run_begin_ = from;
    run_end_ = from;
    while (run_end_ < text_.size()) {
      const auto [code_point, n_bytes] = decode_utf8(text_, run_end_);
      if ((char_class(code_point) & kSpace) == 0) break;
      run_end_ += n_bytes;
    }
    return run_end_;
  }

  [[nodiscard]] std::size_t begin_of_run(std::size_t end, std::size_t limit) const {
    while (end > limit) {
      const std::size_t begin = char_before(text_, end);
      if ((char_class(decode_utf8(text_, begin).code_point) & kSpace) == 0) break;
      end = begin;
    }
    return std::max(end, limit);
  }

 private:
  std::string_view text_;
  std::size_t run_begin_ = 0;
  std::size_t run_end_ = 0;
};

}  // namespace

std::uint32_t SpecialMatcher::child(std::uint32_t node, unsigned char byte) const noexcept {
  if (node == 0) return root_children_[byte];
  std::uint32_t at = nodes_[node].first_child;
  while (at != 0 && nodes_[at].byte != byte) at = nodes_[at].next_sibling;
  return at;
}

SpecialMatcher::SpecialMatcher(std::span<const Pattern> patterns) {
  nodes_.emplace_back();
  for (const Pattern& pattern : patterns) {
    std::uint32_t at = 0;
    for (std::size_t i = pattern.text.size(); i-- > 0;) {
      const auto byte = static_cast<unsigned char>(pattern.text[i]);
      std::uint32_t next = child(at, byte);
      if (next == 0) {
        next = static_cast<std::uint32_t>(nodes_.size());
        Node node;
        node.byte = byte;
        node.depth = nodes_[at].depth + 1;
        if (at == 0) {
          root_children_[byte] = next;
        } else {
          node.next_sibling = nodes_[at].first_child;
          nodes_[at].first_child = next;
        }
        nodes_.push_back(node);
      }
      at = next;
    }
    Node& node = nodes_[at];
    if (node.token >= 0) continue;  // equal texts: the first one counts
    node.token = pattern.token;
    node.everywhere = pattern.everywhere;
    node.left_spaces = pattern.left_spaces;
    node.right_spaces = pattern.right_spaces;
    node.single_word = pattern.single_word;
    has_control_ = has_control_ || !pattern.everywhere;
    has_everywhere_ = has_everywhere_ || pattern.everywhere;
  }
  // Suffix links, breadth first.
  std::vector<std::uint32_t> queue;
  for (const std::uint32_t node : root_children_) {
    if (node != 0) queue.push_back(node);
  }
  for (std::size_t i = 0; i < queue.size(); ++i) {
    const std::uint32_t parent = queue[i];
    for (std::uint32_t node = nodes_[parent].first_child; node != 0;
         node = nodes_[node].next_sibling) {
      std::uint32_t suffix = nodes_[parent].suffix;
      while (suffix != 0 && child(suffix, nodes_[node].byte) == 0) suffix = nodes_[suffix].suffix;
      suffix = child(suffix, nodes_[node].byte);
      nodes_[node].suffix = suffix;
      nodes_[node].next_match = nodes_[suffix].token >= 0 ? suffix : nodes_[suffix].next_match;
      queue.push_back(node);
    }
  }
}

bool SpecialMatcher::is_allowed(const Match& match,
                                std::span<const ByteRange> control_ranges) const noexcept {
  const Node& node = nodes_[match.node];
  return node.everywhere || is_inside(control_ranges, match.begin, match.begin + node.depth);
}

// For every position where allowed tokens begin, from the last, the longest of them.
std::vector<SpecialMatcher::Match> SpecialMatcher::find_matches(
    std::string_view text, std::span<const ByteRange> control_ranges) const {
  std::vector<Match> matches;
  std::uint32_t at = 0;
  for (std::size_t i = text.size(); i-- > 0;) {
    const auto byte = static_cast<unsigned char>(text[i]);
    std::uint32_t next = child(at, byte);
    while (next == 0 && at != 0) {
      at = nodes_[at].suffix;
      next = child(at, byte);
    }
    at = next;
    Match match{i, nodes_[at].token >= 0 ? at : nodes_[at].next_match};
    while (match.node != 0 && !is_allowed(match, control_ranges)) {
      match.node = nodes_[match.node].next_match;
    }
    if (match.node != 0) matches.push_back(match);
  }
  return matches;
}

void SpecialMatcher::cut(std::string_view text, std::span<const ByteRange> control_ranges,
                         std::vector<PromptPart>& out) const {
  std::vector<Match> matches;
  if (!nodes_.empty() && (has_everywhere_ || !control_ranges.empty()))
    matches = find_matches(text, control_ranges);
  Spaces spaces(text);
  std::size_t searched = 0;  // no token may begin before
  std::size_t emitted = 0;   // the text before has its part
  for (std::size_t i = matches.size(); i-- > 0;) {
    if (matches[i].begin < searched) continue;
    const Node& node = nodes_[matches[i].node];
    std::size_t begin = matches[i].begin;
    std::size_t end = begin + node.depth;
    searched = end;
    if (node.single_word && ((begin > 0 && is_word_at(text, char_before(text, begin))) ||
                             (end < text.size() && is_word_at(text, end)))) {
      continue;
    }
    if (node.left_spaces) begin = spaces.begin_of_run(begin, std::min(emitted, begin));
    if (node.right_spaces) end = spaces.end_of_run(end);
    if (emitted < begin) out.push_back({emitted, begin, -1});
    out.push_back({begin, end, node.token});
    // Not the larger of the two: a token of white space may lie within the spaces that the one
    // before has taken, and then what is behind it counts again, as in `tokenizers`.
    emitted = end;
  }
  if (emitted < text.size()) out.push_back({emitted, text.size(), -1});
}

}  // namespace specdec
