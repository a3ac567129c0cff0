// A model together with one cache, as the decoding loop sees it. The engine implements it over
// a Runner and a KvCache; tests implement it over a toy with an enumerable vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/rows.h"

namespace specdec {

// Results are those of the last pass.
class TokenScorer : public RowResults {
 public:
  // Tokens that may be emitted are 0 .. vocab_size() - 1; ids padded above never appear in a row.
  [[nodiscard]] virtual int vocab_size() const = 0;
  [[nodiscard]] virtual int n_ctx() const = 0;
  // Rows in the cache, those of the last forward included until truncate() or keep_path().
  [[nodiscard]] virtual int length() const = 0;

  // Whether each pass reads again what is before its rows, for want of a cache.
  [[nodiscard]] virtual bool rereads() const { return false; }

  // Rows that a pass over a tree may have; of a chain kMaxBatchRows.
  [[nodiscard]] virtual int max_tree_rows() const { return kMaxBatchRows; }

  // Feeds the rows after the cache's content. Strong guarantee: when it throws (context full,
  // cancelled, out of memory), length() is what it was before.
  virtual void forward(const Batch& batch) = 0;

  // How many tokens it can find in a row without its caller, each fed as soon as it is found; 1:
  // that it cannot, or that nothing is gained by it.
  [[nodiscard]] virtual int max_steps() const { return 1; }
  // Feeds a chain with output kArgmax or kTop for its last row, then, up to n_steps - 1 times, the
  // best token of the row before. Returns the steps made, 1 to n_steps: tokens.size() + that - 1
  // rows were fed, outputs are those from row tokens.size() - 1 on, and all is as after one forward
  // after the other. Errors as forward(): a step that would fail is not made, the first one throws.
  virtual int forward_steps(const Batch& batch, int /*n_steps*/) {
    forward(batch);
    return 1;
  }

  // A pass in two phases, behind steps of a draft that it takes as they are found: nobody waits in
  // between. Whether it can:
  [[nodiscard]] virtual bool can_follow(const TokenScorer& /*draft*/) const { return false; }
  // Puts both on their way; all that is given must live until keep(). Errors as forward(), but
  // those of the steps, which `steps` tells at the latest after finish().
  virtual void issue(TokenScorer& /*draft*/, Steps& /*steps*/, const Batch& /*batch*/,
                     std::span<const std::int32_t> /*picks*/) {
    SPECDEC_CHECK(false);
  }
  // Waits for both. The draft's results and cache are then as after its forward_steps().
  virtual void finish() { SPECDEC_CHECK(false); }
  // Says how many of the rows count: all is as after a forward() of these, and what is wrong with
  // others does not matter. Where there are no steps they are those without a pick. Errors as
  // forward(). A pass of which nobody says that is as if it had never been.
  virtual void keep(int /*n_rows*/) { SPECDEC_CHECK(false); }

  // Drops everything from position n on; n <= length(). Where keys or states are forgotten, what is
  // behind the last position that can be gone back to, reachable(n), is fed again when it is
  // needed.
  virtual void truncate(int n) = 0;
  [[nodiscard]] virtual int reachable(int n) const { return n; }
  // Where whoever feeds it lists the tokens of its content, for what is fed again; null: nowhere
  // any more.
  virtual void set_tokens(const std::vector<TokenId>* /*tokens*/) {}
  // Of the last forward's rows keeps exactly `rows` (a path: each row's parent is the one before
  // it, the first one's parent is -1), in that order, and drops the others.
  virtual void keep_path(std::span<const std::int32_t> rows) = 0;
};

}  // namespace specdec
