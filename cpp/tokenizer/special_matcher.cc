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

bool SpecialMatcher::is_allowed(const Match& match,
                                std::span<const ByteRange> control_ranges) const noexcept {
  const Node& node = nodes_[match.node];
  return node.everywhere || is_inside(control_ranges, match.end - node.depth, match.end);
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
    Match match{i + 1, nodes_[at].token >= 0 ? at : nodes_[at].next_match};
    while (match.node != 0 && !is_allowed(match, control_ranges)) {
      match.node = nodes_[match.node].next_match;
    }
    if (match.node != 0) matches.push_back(match);
  }
  return matches;
}

std::vector<PromptPart> SpecialMatcher::choose(std::size_t n_bytes, std::vector<Match> matches,
                                               std::span<const ByteRange> control_ranges) const {
  const auto length_of = [this](const Match& match) { return nodes_[match.node].depth; };
  // They come in the order of their ends, so equally long ones stay in the order of their
  // beginnings.
  std::stable_sort(matches.begin(), matches.end(),
                   [&](const Match& a, const Match& b) { return length_of(a) > length_of(b); });
  // Matches whose longest token did not fit wait until all of that length are done, because few of
  // them are still free then; the rest get the next token that ends there, in a heap.
  std::vector<Match> waiting;
  std::uint32_t waiting_length = 0;
  std::vector<Match> shortened;
  const auto later = [&](const Match& a, const Match& b) {
    return length_of(a) != length_of(b) ? length_of(a) < length_of(b) : a.end > b.end;
  };
  std::vector<PromptPart> found;
  std::vector<bool> taken(n_bytes);
  const auto shorten = [&](Match match) {
    if (taken[match.end - 1]) return;
    do {
      match.node = nodes_[match.node].next_match;
    } while (match.node != 0 &&
             (taken[match.end - length_of(match)] || !is_allowed(match, control_ranges)));
    if (match.node == 0) return;
    shortened.push_back(match);
    std::push_heap(shortened.begin(), shortened.end(), later);
  };
  for (std::size_t i = 0; i < matches.size() || !shortened.empty() || !waiting.empty();) {
    const bool from_heap =
        !shortened.empty() && (i == matches.size() || later(matches[i], shortened.front()));
    const bool is_last = i == matches.size() && !from_heap;
    const Match match = is_last ? Match{} : from_heap ? shortened.front() : matches[i];
    if (!waiting.empty() && (is_last || length_of(match) < waiting_length)) {
      for (const Match& one : waiting) shorten(one);
      waiting.clear();
      continue;
    }
    if (from_heap) {
      std::pop_heap(shortened.begin(), shortened.end(), later);
      shortened.pop_back();
    } else {
      ++i;
    }
    // What was cut out before is at least as long, so looking at both ends is enough.
    if (taken[match.end - 1]) continue;
    const std::size_t begin = match.end - length_of(match);
    if (taken[begin]) {
      waiting.push_back(match);
      waiting_length = length_of(match);
      continue;
    }
    std::fill(taken.begin() + static_cast<std::ptrdiff_t>(begin),
              taken.begin() + static_cast<std::ptrdiff_t>(match.end), true);
    found.push_back({begin, match.end, nodes_[match.node].token});
  }
  std::sort(found.begin(), found.end(),
            [](const PromptPart& a, const PromptPart& b) { return a.begin < b.begin; });
  return found;
}

void SpecialMatcher::cut(std::string_view text, std::span<const ByteRange> control_ranges,
                         std::vector<PromptPart>& out) const {
  std::vector<Match> matches;
  if (!nodes_.empty()) matches = find_matches(text, control_ranges);
  std::vector<PromptPart> found;
  if (!matches.empty()) {
    found = choose(text.size(), std::move(matches), control_ranges);
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
