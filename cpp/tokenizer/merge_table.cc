#include "tokenizer/merge_table.h"

#include <algorithm>
#include <functional>

namespace specdec {
namespace {

constexpr std::uint32_t kNone = 0xffffffff;
// Up to here a scan of all pairs per step beats the queues.
constexpr std::size_t kShortWord = 24;
constexpr std::uint32_t kPollMerges = 1 << 16;  // some milliseconds

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
  for (const MergeRule& rule : rules_) {
    ++first_rule_[rule.left + 1];
    n_ranks_ = std::max(n_ranks_, rule.rank + 1);
  }
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

void MergeTable::add_candidate(std::uint32_t position, std::uint32_t rule, Scratch& scratch) const {
  scratch.rules[position] = rule;
  if (rule == kNoRule) return;
  const std::uint32_t rank = rules_[rule].rank;
  std::uint32_t& index = scratch.bucket_of_rank[rank];
  if (index == kNone) {
    index = static_cast<std::uint32_t>(scratch.n_buckets++);
    if (scratch.buckets.size() < scratch.n_buckets) scratch.buckets.emplace_back();
    scratch.buckets[index].rank = rank;
  }
  Scratch::Bucket& bucket = scratch.buckets[index];
  if (bucket.queue.empty() || bucket.queue.back() <= position) {
    bucket.queue.push_back(position);
  } else {
    bucket.late.push_back(position);
    std::push_heap(bucket.late.begin(), bucket.late.end(), std::greater<>());
  }
  if (bucket.is_active) return;
  bucket.is_active = true;
  scratch.ranks.push_back(rank);
  std::push_heap(scratch.ranks.begin(), scratch.ranks.end(), std::greater<>());
}

std::uint32_t MergeTable::take_candidate(Scratch& scratch) const {
  while (!scratch.ranks.empty()) {
    const std::uint32_t rank = scratch.ranks.front();
    Scratch::Bucket& bucket = scratch.buckets[scratch.bucket_of_rank[rank]];
    while (bucket.next < bucket.queue.size() || !bucket.late.empty()) {
      std::uint32_t position = 0;
      if (bucket.late.empty() ||
          (bucket.next < bucket.queue.size() && bucket.queue[bucket.next] <= bucket.late.front())) {
        position = bucket.queue[bucket.next++];
      } else {
        position = bucket.late.front();
        std::pop_heap(bucket.late.begin(), bucket.late.end(), std::greater<>());
        bucket.late.pop_back();
      }
      // Skip what has changed since it was added.
      const std::uint32_t rule = scratch.rules[position];
      if (rule != kNoRule && rules_[rule].rank == rank) return position;
    }
    bucket.queue.clear();
    bucket.next = 0;
    bucket.is_active = false;
    std::pop_heap(scratch.ranks.begin(), scratch.ranks.end(), std::greater<>());
    scratch.ranks.pop_back();
  }
  return kNone;
}

void MergeTable::merge_long(std::vector<PlacedSymbol>& word, Scratch& scratch) const {
  const auto n = static_cast<std::uint32_t>(word.size());
  std::vector<std::uint32_t>& previous = scratch.previous;
  std::vector<std::uint32_t>& next = scratch.next;
  previous.resize(n);
  next.resize(n);
  scratch.rules.assign(n, kNoRule);
  scratch.bucket_of_rank.resize(n_ranks_, kNone);
  for (std::uint32_t i = 0; i < n; ++i) {
    previous[i] = i == 0 ? kNone : i - 1;
    next[i] = i + 1 == n ? kNone : i + 1;
    if (i + 1 < n) add_candidate(i, find(word[i].symbol, word[i + 1].symbol), scratch);
    if ((i + 1) % kPollMerges == 0 && scratch.poll != nullptr) (*scratch.poll)();
  }
  std::uint32_t n_merges = 0;
  for (std::uint32_t left = 0; (left = take_candidate(scratch)) != kNone;) {
    if (++n_merges % kPollMerges == 0 && scratch.poll != nullptr) (*scratch.poll)();
    const std::uint32_t right = next[left];
    const std::uint32_t after = next[right];
    const std::uint32_t before = previous[left];
    word[left].symbol = rules_[scratch.rules[left]].merged;
    scratch.rules[right] = kNoRule;
    next[left] = after;
    if (after != kNone) previous[after] = left;
    add_candidate(left, after == kNone ? kNoRule : find(word[left].symbol, word[after].symbol),
                  scratch);
    if (before != kNone) {
      add_candidate(before, find(word[before].symbol, word[left].symbol), scratch);
    }
  }
  for (std::size_t i = 0; i < scratch.n_buckets; ++i) {
    scratch.bucket_of_rank[scratch.buckets[i].rank] = kNone;
  }
  scratch.n_buckets = 0;
  std::size_t n_left = 0;
  for (std::uint32_t i = 0; i != kNone; i = next[i]) word[n_left++] = word[i];
  word.resize(n_left);
}

}  // namespace specdec
