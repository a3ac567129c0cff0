#include "tokenizer/merge_table.h"

#include <algorithm>

namespace specdec {
namespace {

constexpr std::uint32_t kNone = 0xffffffff;
// Up to here a scan of all pairs per step beats the heap.
constexpr std::size_t kShortWord = 24;

}  // namespace

MergeTable::MergeTable(std::vector<MergeRule> rules) : rules_(std::move(rules)) {
  std::sort(rules_.begin(), rules_.end(), [](const MergeRule& a, const MergeRule& b) {
    if (a.left != b.left) return a.left < b.left;
    return a.right != b.right ? a.right < b.right : a.rank < b.rank;
  });
  const auto same_pair = [](const MergeRule& a, const MergeRule& b) {
    return a.left == b.left && a.right == b.right;
  };
  rules_.erase(std::unique(rules_.begin(), rules_.end(), same_pair), rules_.end());
  rules_.shrink_to_fit();
  if (rules_.empty()) return;
  first_rule_.assign(static_cast<std::size_t>(rules_.back().left) + 2, 0);
  for (const MergeRule& rule : rules_) ++first_rule_[rule.left + 1];
  for (std::size_t i = 1; i < first_rule_.size(); ++i) first_rule_[i] += first_rule_[i - 1];
}

std::uint32_t MergeTable::find(Symbol left, Symbol right) const noexcept {
  if (static_cast<std::size_t>(left) + 1 >= first_rule_.size()) return kNoRule;
  const auto begin = rules_.begin() + first_rule_[left];
  const auto end = rules_.begin() + first_rule_[left + 1];
  const auto it = std::lower_bound(
      begin, end, right, [](const MergeRule& rule, Symbol symbol) { return rule.right < symbol; });
  if (it == end || it->right != right) return kNoRule;
  return static_cast<std::uint32_t>(it - rules_.begin());
}

void MergeTable::merge(std::vector<PlacedSymbol>& word, Scratch& scratch) const {
  if (word.size() <= kShortWord) {
    merge_short(word, scratch);
  } else {
    merge_long(word, scratch);
  }
}

void MergeTable::merge_short(std::vector<PlacedSymbol>& word, Scratch& scratch) const {
  std::vector<std::uint32_t>& pair_rules = scratch.rules;  // [i]: the rule for symbols i and i + 1
  pair_rules.clear();
  for (std::size_t i = 0; i + 1 < word.size(); ++i) {
    pair_rules.push_back(find(word[i].symbol, word[i + 1].symbol));
  }
  while (true) {
    std::size_t best = pair_rules.size();
    std::uint32_t best_rank = kNone;
    for (std::size_t i = 0; i < pair_rules.size(); ++i) {
      if (pair_rules[i] == kNoRule || rules_[pair_rules[i]].rank >= best_rank) continue;
      best_rank = rules_[pair_rules[i]].rank;
      best = i;
    }
    if (best == pair_rules.size()) return;
    word[best].symbol = rules_[pair_rules[best]].merged;
    word.erase(word.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    pair_rules.erase(pair_rules.begin() + static_cast<std::ptrdiff_t>(best));
    if (best > 0) pair_rules[best - 1] = find(word[best - 1].symbol, word[best].symbol);
    if (best + 1 < word.size()) pair_rules[best] = find(word[best].symbol, word[best + 1].symbol);
  }
}

void MergeTable::merge_long(std::vector<PlacedSymbol>& word, Scratch& scratch) const {
  const auto n = static_cast<std::uint32_t>(word.size());
  auto& [previous, next, unused, heap] = scratch;
  previous.resize(n);
  next.resize(n);
  heap.clear();
  const auto later = [](const auto& a, const auto& b) { return a.order > b.order; };
  const auto candidate = [&](std::uint32_t left, std::uint32_t rule) {
    return Scratch::Candidate{std::uint64_t{rules_[rule].rank} << 32 | left, rule};
  };
  for (std::uint32_t i = 0; i < n; ++i) {
    previous[i] = i == 0 ? kNone : i - 1;
    next[i] = i + 1 == n ? kNone : i + 1;
    if (i + 1 == n) break;
    const std::uint32_t rule = find(word[i].symbol, word[i + 1].symbol);
    if (rule != kNoRule) heap.push_back(candidate(i, rule));
  }
  std::make_heap(heap.begin(), heap.end(), later);
  const auto push = [&](std::uint32_t left, std::uint32_t right) {
    if (left == kNone || right == kNone) return;
    const std::uint32_t rule = find(word[left].symbol, word[right].symbol);
    if (rule == kNoRule) return;
    heap.push_back(candidate(left, rule));
    std::push_heap(heap.begin(), heap.end(), later);
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const auto [order, rule_index] = heap.back();
    heap.pop_back();
    const MergeRule& rule = rules_[rule_index];
    const auto left = static_cast<std::uint32_t>(order);
    const std::uint32_t right = next[left];
    // A candidate is stale once either symbol has changed; swallowed symbols are kNoSymbol.
    if (right == kNone || word[left].symbol != rule.left || word[right].symbol != rule.right) continue;
    word[left].symbol = rule.merged;
    word[right].symbol = kNoSymbol;
    next[left] = next[right];
    if (next[right] != kNone) previous[next[right]] = left;
    push(previous[left], left);
    push(left, next[left]);
  }
  std::size_t n_left = 0;
  for (std::uint32_t i = 0; i != kNone; i = next[i]) word[n_left++] = word[i];
  word.resize(n_left);
}

}  // namespace specdec
