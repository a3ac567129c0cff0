// A model together with one cache, as the decoding loop sees it. The engine implements it over
// model::Model and kv::KvCache; tests implement it over a toy with an enumerable vocabulary.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <span>

#include "base/error.h"
#include "base/token.h"
#include "decode/control/cost_model.h"

namespace specdec {

// What the caller wants to know about each wanted row.
enum class RowOutput {
  kNone,    // nothing: only the cache is filled
  kArgmax,  // best token (ties: lowest id)
  kTop,     // the best top_k tokens, and the log of the sum of e^logit
  kLogits,  // the full row
};

// One forward pass. Row r's parent is the row it continues: -1 means the last token in the cache,
// otherwise an index below r. A chain has parents -1, 0, 1, ...; positions follow from depth.
struct ScorerBatch {
  std::span<const TokenId> tokens;        // [n_rows]
  std::span<const std::int32_t> parents;  // [n_rows], or empty for a chain
  int first_output_row = 0;               // rows from here on produce output
  RowOutput output = RowOutput::kLogits;
  int top_k = 1;  // of kTop: 1 .. kMaxTopK
  // Blocks of kTokenBlock ids that count, ascending and distinct; the others are impossible. Empty:
  // all.
  std::span<const std::int32_t> token_blocks = {};

  // Best tokens that a row of output has at most.
  [[nodiscard]] int n_best() const { return output == RowOutput::kTop ? top_k : 1; }
};

inline constexpr int kMaxTopK = 256;
inline constexpr int kTokenBlock = 16;

class TokenScorer;

// A chain that a draft's scorer makes on the way to a pass of its target, and what became of it.
struct DraftChain {
  TokenScorer* scorer = nullptr;
  ScorerBatch batch = {};  // with n_steps, as for forward_chain()
  int n_steps = 0;

  int n_done = 0;                 // steps that were made
  std::exception_ptr error = {};  // why there are none
  double share = 0.0;             // of the time that both took
};

class TokenScorer {
 public:
  virtual ~TokenScorer() = default;

  // Tokens that may be emitted are 0 .. vocab_size() - 1; ids padded above never appear in a row.
  [[nodiscard]] virtual int vocab_size() const = 0;
  [[nodiscard]] virtual int n_ctx() const = 0;
  // Rows in the cache, those of the last forward included until truncate() or keep_path().
  [[nodiscard]] virtual int length() const = 0;

  // Whether each pass reads again what is before its rows, for want of a cache.
  [[nodiscard]] virtual bool rereads() const { return false; }

  // Feeds the rows after the cache's content. Strong guarantee: when it throws (context full,
  // cancelled, out of memory), length() is what it was before.
  virtual void forward(const ScorerBatch& batch) = 0;

  // How many tokens it can find in a row without its caller, each fed as soon as it is found; 1:
  // that it cannot, or that nothing is gained by it.
  [[nodiscard]] virtual int max_chain_steps() const { return 1; }
  // Feeds a chain with output kArgmax or kTop for its last row, then, up to n_steps - 1 times, the
  // best token of the row before. Returns the steps made, 1 to n_steps: tokens.size() + that - 1
  // rows were fed, outputs are those from row tokens.size() - 1 on, and all is as after one forward
  // after the other. Errors as forward(): a step that would fail is not made, the first one throws.
  virtual int forward_chain(const ScorerBatch& batch, int /*n_steps*/) {
    forward(batch);
    return 1;
  }

  // Whether it can feed what `draft` finds without anybody waiting for that.
  [[nodiscard]] virtual bool can_follow(const TokenScorer& /*draft*/) const { return false; }
  // Makes the chain, and feeds `batch` behind it, of which the row r has, instead of its token,
  // that of the chain's result sources[r] = step * its n_best() + rank; rows without one (-1) come
  // first. Then `n_used` is asked how many of the rows count, the chain's results being those of a
  // forward_chain(): all is as after a forward() of these rows. Where the chain has failed they are
  // those without a source. Errors as forward(), n_used's own included; then the chain may have
  // been made or not. For scorers that can follow.
  virtual void forward_behind(DraftChain& /*chain*/, const ScorerBatch& /*batch*/,
                              std::span<const std::int32_t> /*sources*/,
                              const std::function<int()>& /*n_used*/) {
    SPECDEC_CHECK(false);
  }

  // What the last forward read, or such rows alone would have.
  [[nodiscard]] virtual Reading reading() const { return {}; }

  // Output of row r of the last forward (r >= first_output_row). Valid until the next forward.
  [[nodiscard]] virtual std::span<const float> logits(
      int row) const = 0;                                   // [vocab_size], kLogits only
  [[nodiscard]] virtual TokenId argmax(int row) const = 0;  // every kind but kNone
  // Best first, ties to the lowest id; fewer than top_k when fewer are possible. kTop only.
  [[nodiscard]] virtual std::span<const TopToken> top(int row) const = 0;
  [[nodiscard]] virtual float log_sum_exp(int row) const = 0;  // kTop only

  // Lengths below this one, but for 0, cannot be gone back to: what they see is forgotten.
  [[nodiscard]] virtual int lowest() const { return 0; }
  // Drops everything from position n on; n <= length(), n = 0 or at least lowest().
  virtual void truncate(int n) = 0;
  // Of the last forward's rows keeps exactly `rows` (a path: each row's parent is the one before
  // it, the first one's parent is -1), in that order, and drops the others.
  virtual void keep_path(std::span<const std::int32_t> rows) = 0;
};

}  // namespace specdec
