// Pair merging, the core of both tokenizer kinds: again and again the adjacent pair with the lowest rank
// becomes one symbol, the leftmost first among equal ranks. Byte-pair vocabularies rank by the order of
// their merges, SentencePiece vocabularies by falling score.
#pragma once

#include <cstdint>
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
    struct Candidate {
      std::uint64_t order;  // rank << 32 | position of the left symbol
      std::uint32_t rule;
    };
    std::vector<std::uint32_t> previous;
    std::vector<std::uint32_t> next;
    std::vector<std::uint32_t> rules;
    std::vector<Candidate> heap;
  };

  MergeTable() = default;
  // Of several rules for one pair the lowest rank counts.
  explicit MergeTable(std::vector<MergeRule> rules);

  // Merges in place until no rule applies: at most n - 1 steps, O(n log n). n < 2^32 - 1.
  void merge(std::vector<PlacedSymbol>& word, Scratch& scratch) const;

 private:
  static constexpr std::uint32_t kNoRule = 0xffffffff;

  [[nodiscard]] std::uint32_t find(Symbol left, Symbol right) const noexcept;
  void merge_short(std::vector<PlacedSymbol>& word, Scratch& scratch) const;
  void merge_long(std::vector<PlacedSymbol>& word, Scratch& scratch) const;

  // Sorted by (left, right); the rules of `left` are [first_rule_[left], first_rule_[left + 1]). No hash,
  // so that no file can make lookups slow.
  std::vector<MergeRule> rules_;
  std::vector<std::uint32_t> first_rule_;
};

}  // namespace specdec
