// A head together with the text that its cache holds, and what it has not read yet.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/token.h"
#include "decode/feature_scorer.h"

namespace specdec {

// Row P of a text is its token P + 1 beside what the target said at P. Rows are known without a gap
// from first_row() on: up to n_read() the cache holds them, up to n_known() their taps wait here.
// Only rows of the target are ever known; what a draft adds is dropped by drop_drafts().
class FeatureCache {
 public:
  explicit FeatureCache(FeatureScorer& scorer) : scorer_(scorer) {}
  // Of a fork, whose scorer holds what `other`'s does.
  FeatureCache(FeatureScorer& scorer, const FeatureCache& other);
  FeatureCache(const FeatureCache&) = delete;
  FeatureCache& operator=(const FeatureCache&) = delete;

  [[nodiscard]] FeatureScorer& scorer() { return scorer_; }
  [[nodiscard]] int first_row() const { return first_row_; }
  [[nodiscard]] int n_read() const { return first_row_ + n_read_; }
  [[nodiscard]] int n_known() const { return n_read() + n_waiting(); }
  [[nodiscard]] int n_waiting() const { return static_cast<int>(tokens_.size()) - n_read_; }

  // Keeps the rows that are of this text too, without its last token's.
  void align(std::span<const TokenId> text);
  // Rows from `row` on are known now: as many as there are taps, [n, scorer.n_tapped()]. Those
  // behind a gap begin anew. text: at least to the token behind the last of them.
  void add(std::span<const TokenId> text, int row, std::span<const float> taps);
  // Reads what waits, at least one row, in pieces; the last one is the only one with an output.
  // Returns which row of the scorer's results that is.
  // head_blocks: as in Batch.
  int read(RowOutput output, int top_k, std::span<const std::int32_t> head_blocks = {});
  // Without outputs; `cancel` (may be null) is asked between pieces.
  void read_all_but_last(const std::atomic<bool>* cancel);
  // A draft's row behind the others.
  void append(TokenId token, std::span<const float> feature, RowOutput output, int top_k,
              std::span<const std::int32_t> head_blocks = {});
  // Rows of a tree of drafts behind the others, in place of what was drafted before; batch.hidden
  // are their features.
  void append_tree(const Batch& batch);
  void drop_drafts();
  void clear();

  // Beyond this somebody had better read.
  static constexpr int kMostWaiting = 64;
  static constexpr int kPieceRows = 256;

 private:
  void cut(int n_rows);  // all but the first so many
  void read_piece(int n_rows, RowOutput output, int top_k,
                  std::span<const std::int32_t> head_blocks);

  FeatureScorer& scorer_;
  int first_row_ = 0;
  int n_read_ = 0;
  std::vector<TokenId> head_;    // the text up to the first row: [first_row_ + 1]
  std::vector<TokenId> tokens_;  // of the known rows
  std::vector<float> waiting_;   // [n_waiting(), n_tapped()]
  std::vector<float> features_;
};

}  // namespace specdec
