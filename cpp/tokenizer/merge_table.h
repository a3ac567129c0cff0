// Pair merging, the core of both tokenizer kinds: again and again the adjacent pair with the lowest
// rank becomes one symbol, the leftmost first among equal ranks. Byte-pair vocabularies rank by the
// order of their merges, SentencePiece vocabularies by falling score.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace specdec {

using Symbol = std::uint32_t;
inline constexpr Symbol kNoSymbol = 0xffffffff;  // never part of a pair

struct MergeRule {
  Symbol left;
  Symbol right;
  std::uint32_t rank;
  Symbol merged;
};

// A symbol and where its text begins in the merged word.
struct PlacedSymbol {
  Symbol symbol;
  std::uint32_t begin;
};

class MergeTable {
 public:
  // Buffers that a caller keeps between calls.
  struct Scratch {
    // Positions of left symbols whose pair has one rank: a queue in rising order, and a heap
    // (smallest on top) of those that came out of order.
    struct Bucket {
      std::uint32_t rank = 0;
      bool is_active = false;  // stands in `ranks`
      std::size_t next = 0;    // the front of `queue`
      std::vector<std::uint32_t> queue;
      std::vector<std::uint32_t> late;
    };
    std::vector<std::uint32_t> previous;
    std::vector<std::uint32_t> next;
    std::vector<std::uint32_t> rules;  // by position: the rule for the pair that begins there
    std::vector<std::uint32_t> bucket_of_rank;  // index into `buckets`
    std::vector<Bucket> buckets;
    std::size_t n_buckets = 0;
    std::vector<std::uint32_t> ranks;  // heap of (rank, smallest on top)
    // Called now and then in a long word; may throw, which ends the merge.
    const std::function<void()>* poll = nullptr;
  };

  MergeTable() = default;
  // Of several rules for one pair the lowest rank counts.
  explicit MergeTable(std::vector<MergeRule> rules);

  // Merges in place until no rule applies: at most n - 1 steps, O(n log n), near linear on usual
  // and on repetitive text. n < 2^32 - 1.
  void merge(std::vector<PlacedSymbol>& word, Scratch& scratch) const;

 private:
  static constexpr std::uint32_t kNoRule = 0xffffffff;

  [[nodiscard]] std::uint32_t find(Symbol left, Symbol right) const noexcept;
  void merge_short(std::vector<PlacedSymbol>& word, Scratch& scratch) const;
  void merge_long(std::vector<PlacedSymbol>& word, Scratch& scratch) const;
  void add_candidate(std::uint32_t position, std::uint32_t rule, Scratch& scratch) const;
  // The leftmost candidate of the lowest rank, kNoRule when there is none left.
  [[nodiscard]] std::uint32_t take_candidate(Scratch& scratch) const;

  // Sorted by (left, right); the rules of `left` are [first_rule_[left], first_rule_[left + 1]). No
  // hash, so that no file can make lookups slow.
  std::vector<MergeRule> rules_;
  std::vector<std::uint32_t> first_rule_;
  std::uint32_t n_ranks_ = 0;  // all ranks are below
};

}  // namespace specdec
