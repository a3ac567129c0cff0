// A suffix automaton over a text of tokens that grows at its end: every substring, in at most two
// states per token, and the longest suffix of the text that occurred before. A token costs
// amortised constant time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/token.h"

namespace specdec {

// Where a longest known suffix occurred.
struct SuffixMatch {
  int length = 0;           // tokens; 0: none
  std::int32_t next = 0;    // index in text() of the token that followed, <= size
  std::int32_t period = 0;  // > 0: text()[next ..] repeats from here after so many tokens
};

class SuffixIndex {
 public:
  SuffixIndex();

  void append(TokenId token);  // >= 0
  // No match reaches across it.
  void append_separator();
  // [size] tokens; separators are negative.
  [[nodiscard]] std::span<const TokenId> text() const { return text_; }
  // The longest suffix of the text (back to the last separator) that occurred before, at its most
  // recent earlier place.
  [[nodiscard]] const SuffixMatch& match() const { return match_; }
  [[nodiscard]] std::size_t n_bytes() const;

  // Follows another text through a finished index.
  class Cursor {
   public:
    void push(const SuffixIndex& index, TokenId token);
    // The longest suffix of the pushed tokens that the index knows.
    [[nodiscard]] SuffixMatch match(const SuffixIndex& index) const;

   private:
    std::int32_t state_ = 0;
    int length_ = 0;
  };
  // To be called when the text is complete: cursors then find the last place of every match.
  void finish();

 private:
  struct State {
    std::int32_t length = 0;  // of its longest substring
    std::int32_t link = -1;   // state of the longest suffix that occurs in more places
    std::int32_t last = -1;   // index in text_ of the last token of the most recent occurrence
    std::int32_t first_edge = -1;
  };
  struct Edge {
    std::int32_t state;
    TokenId token;
    std::int32_t target;
    std::int32_t next;  // edge of the same state
  };

  void extend(TokenId token);
  [[nodiscard]] std::int32_t find_edge(std::int32_t state, TokenId token) const;
  void add_edge(std::int32_t state, TokenId token, std::int32_t target);
  void insert_slot(std::int32_t edge);

  std::vector<TokenId> text_;
  std::vector<State> states_;  // 0: the empty string
  std::vector<Edge> edges_;
  std::vector<std::int32_t> slots_;  // hash of (state, token) -> edge + 1, for all but first edges
  std::size_t n_slots_used_ = 0;
  std::int32_t end_ = 0;  // state of the whole text
  TokenId separator_ = -1;
  SuffixMatch match_;
};

// An index of texts that will not grow, or null if all are empty; no match reaches from one into
// another. `poll` is called many times a second; it may throw.
[[nodiscard]] std::shared_ptr<const SuffixIndex> make_suffix_corpus(
    std::span<const std::vector<TokenId>> texts, const std::function<void()>& poll = {});

}  // namespace specdec
