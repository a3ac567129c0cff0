#include "tokenizer/special_matcher.h"

#include <algorithm>

namespace specdec {
namespace {

bool is_inside(std::span<const ByteRange> ranges, std::size_t begin, std::size_t end) {
  const auto after = std::upper_bound(
      ranges.begin(), ranges.end(), begin,
      [](std::size_t position, const ByteRange& range) { return position < range.begin; });
  return after != ranges.begin() && end <= std::prev(after)->end;
}

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
    for (const char c : pattern.text) {
      const auto byte = static_cast<unsigned char>(c);
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
    if (nodes_[at].token >= 0) continue;  // equal texts: the first one counts
    nodes_[at].token = pattern.token;
    nodes_[at].everywhere = pattern.everywhere;
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

// For every position where allowed tokens end, the longest of them.
std::vector<SpecialMatcher::Match> SpecialMatcher::find_matches(
    std::string_view text, std::span<const ByteRange> control_ranges) const {
  std::vector<Match> matches;
  std::uint32_t at = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    std::uint32_t next = child(at, byte);
    while (next == 0 && at != 0) {
      at = nodes_[at].suffix;
      next = child(at, byte);
    }
    at = next;
    std::uint32_t node = nodes_[at].token >= 0 ? at : nodes_[at].next_match;
    while (node != 0 && !nodes_[node].everywhere &&
           !is_inside(control_ranges, i + 1 - nodes_[node].depth, i + 1)) {
      node = nodes_[node].next_match;
    }
    if (node != 0) matches.push_back({i + 1, node});
  }
  return matches;
}

void SpecialMatcher::cut(std::string_view text, std::span<const ByteRange> control_ranges,
                         std::vector<PromptPart>& out) const {
  std::vector<Match> matches;
  if (!nodes_.empty()) matches = find_matches(text, control_ranges);
  std::vector<PromptPart> found;
  if (!matches.empty()) {
    const auto later = [this](const Match& a, const Match& b) {
      const std::uint32_t a_length = nodes_[a.node].depth;
      const std::uint32_t b_length = nodes_[b.node].depth;
      return a_length != b_length ? a_length < b_length : a.end > b.end;
    };
    std::make_heap(matches.begin(), matches.end(), later);
    std::vector<bool> taken(text.size());
    while (!matches.empty()) {
      std::pop_heap(matches.begin(), matches.end(), later);
      const auto [end, longest] = matches.back();
      matches.pop_back();
      // What was cut out before is at least as long, so looking at both ends is enough.
      if (taken[end - 1]) continue;
      if (!taken[end - nodes_[longest].depth]) {
        const std::size_t begin = end - nodes_[longest].depth;
        std::fill(taken.begin() + static_cast<std::ptrdiff_t>(begin),
                  taken.begin() + static_cast<std::ptrdiff_t>(end), true);
        found.push_back({begin, end, nodes_[longest].token});
        continue;
      }
      // A shorter token that ends here may still fit; its turn comes with its length.
      std::uint32_t node = nodes_[longest].next_match;
      while (node != 0 && (taken[end - nodes_[node].depth] ||
                           (!nodes_[node].everywhere &&
                            !is_inside(control_ranges, end - nodes_[node].depth, end)))) {
        node = nodes_[node].next_match;
      }
      if (node == 0) continue;
      matches.push_back({end, node});
      std::push_heap(matches.begin(), matches.end(), later);
    }
    std::sort(found.begin(), found.end(),
              [](const PromptPart& a, const PromptPart& b) { return a.begin < b.begin; });
  }
  std::size_t position = 0;
  for (const PromptPart& part : found) {
    if (position < part.begin) out.push_back({position, part.begin, -1});
    out.push_back(part);
    position = part.end;
  }
  if (position < text.size()) out.push_back({position, text.size(), -1});
}

}  // namespace specdec
