// The rows of a pass, what is wanted of them and what comes of it: the words that models, the
// decoding loop and all between them share.
#pragma once

#include <cstdint>
#include <exception>
#include <span>

#include "base/token.h"

namespace specdec {

// What a pass computes for the rows from first_output_row on.
enum class RowOutput {
  kNone,    // only the cache is filled
  kHidden,  // the residual stream after the last layer of the range, before the final norm
  kArgmax,  // best token (ties: lowest id)
  kTop,     // the best top_k tokens, and the log of the sum of e^logit
  kLogits,  // the full row, and the best token
};

inline constexpr int kHeadBlock = 16;
inline constexpr int kMaxTopK = 256;

// Layers [first, last); last -1: to the end. Self-speculation drafts with a prefix of the layers.
struct LayerRange {
  int first = 0;
  int last = -1;
};

// Rows to feed after the content of a cache. Row r continues row parents[r], -1: the cache's last
// position; its position is the length of the cache plus its depth.
struct Batch {
  std::span<const TokenId> tokens = {};        // [n_rows], 1 <= n_rows <= kMaxBatchRows
  std::span<const std::int32_t> parents = {};  // [n_rows], each below its row; empty: a chain
  int first_output_row = 0;
  RowOutput output = RowOutput::kLogits;
  int top_k = 1;  // of kTop: 1..kMaxTopK
  // Blocks of kHeadBlock token ids that the head computes, ascending and distinct; empty: all. The
  // other tokens count as impossible.
  std::span<const std::int32_t> head_blocks = {};

  // Of those who know the model's layers.
  LayerRange layers = {};
  // [n_rows, hidden_size] to start from instead of the embedding of `tokens`, or empty: continues a
  // pass that stopped after layer layers.first (its output kHidden).
  std::span<const float> hidden = {};
  // So many of the first rows are the cache's last positions, filled by that pass for the layers
  // below layers.first.
  int n_present = 0;
  bool stays = false;  // no row is dropped again unless all are; saves memory with many outputs
  bool keep_hidden = false;  // besides the output, the residual stream as kHidden would give it
  bool keep_logits = false;  // besides kTop, the full rows; of passes on the CPU
  // Layers, ascending and distinct, whose input somebody reads, of all rows: l is the residual
  // stream that enters layer l, the number of layers what leaves the last one, before the final
  // norm. Of passes on the CPU through all layers.
  std::span<const std::int32_t> taps = {};

  // Best tokens that a row of output has at most.
  [[nodiscard]] int n_best() const { return output == RowOutput::kTop ? top_k : 1; }
};

inline constexpr int kMaxBatchRows = 512;

[[nodiscard]] inline bool is_chain(std::span<const std::int32_t> parents) {
  for (std::size_t r = 0; r < parents.size(); ++r) {
    if (parents[r] != static_cast<std::int32_t>(r) - 1) return false;
  }
  return true;
}

// Steps that a draft makes without its caller, on the way to a pass of its target, and what became
// of them: the batch is a chain with output kArgmax or kTop for its last row; then, up to n_steps -
// 1 times, follows the best token of the row before.
//
// Row r of the pass behind them has a pick: which of the results of the steps is its token, step *
// batch.n_best() + rank; -1: it has its own. Rows with their own token come first.
struct Steps {
  Batch batch = {};
  int n_steps = 1;

  int n_done = 0;                 // that were made
  std::exception_ptr error = {};  // why there are none
  double share = 0.0;             // of the time that they and the pass took
};

// Of a mixture of experts: the weights that a pass of so many rows reads, in those of one row.
struct Reading {
  int n_rows = 1;
  double weights = 1.0;
};

// What a pass has computed for row r of its batch, r >= first_output_row. Lives until the next one.
class RowResults {
 public:
  virtual ~RowResults() = default;
  [[nodiscard]] virtual std::span<const float> logits(int row) const = 0;  // [n_tokens], kLogits
  [[nodiscard]] virtual TokenId argmax(int row) const = 0;                 // every kind with a head
  // Best first, ties to the lowest id; fewer than top_k when fewer are possible. kTop.
  [[nodiscard]] virtual std::span<const TopToken> top(int row) const = 0;
  [[nodiscard]] virtual float log_sum_exp(int row) const = 0;  // kTop
  // [n_taps, hidden_size] in the order of Batch::taps; of every row, also before first_output_row.
  [[nodiscard]] virtual std::span<const float> taps(int /*row*/) const { return {}; }
  // Of the pass; of one of many rows, what a few of them would read.
  [[nodiscard]] virtual Reading reading() const { return {}; }
};

}  // namespace specdec
