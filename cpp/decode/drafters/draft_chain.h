// What drafters have in common that run a model: a chain, token by token, until a rule ends it, and
// the candidates of a tree's rows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "decode/drafter.h"
#include "decode/drafters/draft_head.h"
#include "decode/drafters/draft_sampler.h"

namespace specdec {

class ChainDrafter : public ModelDrafter {
 public:
  DraftLengths lengths() const override { return options_.lengths; }
  int default_draft_max() const override { return 4; }

 protected:
  class Tree;

  explicit ChainDrafter(const DraftModelOptions& options) : options_(options) {
    DraftSampler::check(options);
  }

  // A new request; vocab_size: of the model that drafts.
  void start(const DraftSetup& setup, std::span<const TokenId> prompt, int vocab_size) {
    setup_ = setup;
    failure_ = nullptr;
    sampler_.begin(options_, setup, vocab_size);
    head_.begin(std::min(vocab_size, setup.vocab_size), options_.head_tokens);
    head_.add(setup.eog, vocab_size);
    head_.add(prompt, vocab_size);
  }

  // At the beginning of a draft: throws what failed in the one before.
  void throw_failure() {
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  // At most n tokens, the first from `row` of a pass whose outputs are as the sampler asks.
  // step(token, row, n_more) feeds what came from a row, and returns the row behind it; n_more:
  // that are wanted yet, 0: none, and nothing is to be fed.
  template <typename Step>
  DraftProposal draft_chain(const RowResults& results, std::span<const TokenId> committed, int row,
                            int n, Chance& chance, Step&& step) {
    DraftProposal proposal;
    std::vector<TokenId> path;  // committed + drafted, only when penalties look at it
    if (sampler_.has_penalties()) path.assign(committed.begin(), committed.end());
    proposal.chosen = !sampler_.draws();
    std::int32_t parent = -1;
    for (int depth = 0;; ++depth) {
      const auto first = static_cast<std::int32_t>(proposal.size());
      const auto add = [&] {
        sampler_.add_candidates(results,
                                {.row = row,
                                 .path = path,
                                 .n_committed = committed.size(),
                                 .depth = depth,
                                 .parent = parent},
                                proposal, chance);
      };
      if (!succeeds(proposal, add)) return proposal;
      const TokenId token = proposal.tokens[static_cast<std::size_t>(first)];
      const bool goes_on = !ends_text(token) && depth + 1 < n &&
                           (setup_.length_rule == nullptr ||
                            setup_.length_rule->keep_going(depth + 1, sampler_.probability()));
      if (!goes_on) {
        if (sampler_.siblings() && proposal.is_chain()) proposal.parents.clear();
        step(token, row, 0);
        return proposal;
      }
      if (sampler_.has_penalties()) path.push_back(token);
      throw_if_cancelled(setup_.cancel);
      const auto go_on = [&] { row = step(token, row, n - depth - 1); };
      if (!succeeds(proposal, go_on)) return proposal;
      parent = first;
    }
  }

  [[nodiscard]] bool ends_text(TokenId token) const {
    return std::find(setup_.eog.begin(), setup_.eog.end(), token) != setup_.eog.end();
  }

  DraftModelOptions options_;
  DraftSetup setup_;
  DraftSampler sampler_;
  DraftHead head_;

 private:
  // Whether a step behind the proposal could be made. Tokens that were drawn stand although what
  // follows fails: without them, those for which it does would come too seldom. The failure is
  // thrown when it is the turn of the next draft.
  template <typename Step>
  [[nodiscard]] bool succeeds(const DraftProposal& proposal, Step&& step) {
    try {
      step();
    } catch (const Error& error) {
      if (proposal.empty() || proposal.deterministic() || error.code() == ErrorCode::kCancelled)
        throw;
      failure_ = std::current_exception();
    }
    return failure_ == nullptr;
  }

  std::exception_ptr failure_;  // behind the last drawn draft
};

// Whoever derives from it feeds the rows.
class ChainDrafter::Tree : public TreeModel {
 public:
  Tree(const ChainDrafter& drafter, const RowResults& results, std::size_t n_committed,
       const TreeBounds& bounds, Chance& chance)
      : top_k_(std::max(drafter.sampler_.top_k(), bounds.n_candidates)),
        drafter_(drafter),
        results_(results),
        n_committed_(n_committed),
        chance_(chance) {}

  Candidates candidates(int row, int depth, int n) override {
    return drafter_.sampler_.best_of(results_, row, depth, n_committed_, n, chance_);
  }
  bool ends_text(TokenId token) const override { return drafter_.ends_text(token); }

 protected:
  const int top_k_;  // of its rows

 private:
  const ChainDrafter& drafter_;
  const RowResults& results_;
  const std::size_t n_committed_;
  Chance& chance_;
};

}  // namespace specdec
