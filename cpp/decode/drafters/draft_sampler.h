// How a draft model's candidates come from a row of its logits: which distribution, drawn or best,
// and what of the row that needs.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "decode/drafter.h"
#include "decode/token_scorer.h"
#include "sampling/chance.h"
#include "sampling/distribution.h"
#include "sampling/proposal.h"

namespace specdec {

// Where a proposal is to grow.
struct DraftPoint {
  int row = 0;                         // of the scorer's last pass
  std::span<const TokenId> path = {};  // committed and drafted, when penalties look at it
  std::size_t n_committed = 0;
  int depth = 0;
  std::int32_t parent = -1;  // in the proposal
};

class DraftSampler {
 public:
  // Throws Error(kInvalidArgument) naming an option out of range.
  static void check(const DraftModelOptions& options);

  // A new request; vocab_size: of the draft model. Throws Error(kInvalidArgument) where the options
  // do not fit the verifier.
  void begin(const DraftModelOptions& options, const DraftSetup& setup, int vocab_size);

  // What rows have to tell, as in Batch.
  [[nodiscard]] RowOutput output() const { return output_; }
  [[nodiscard]] int top_k() const { return top_k_; }
  // Whether a draft is the best token of each row and nothing else: a model can go on by itself.
  [[nodiscard]] bool takes_best() const { return takes_best_; }
  // Whether the length rule may ask for leaves beside the chain.
  [[nodiscard]] bool siblings() const { return siblings_; }
  [[nodiscard]] bool draws() const { return mode_ == DraftMode::kSampled; }
  [[nodiscard]] bool has_penalties() const { return setup_.sampling.has_penalties(); }

  // Of a pass whose outputs are as asked for: the candidates of one depth, and the distribution
  // that they come from when the verifier wants it.
  void add_candidates(const RowResults& results, const DraftPoint& at, DraftProposal& proposal,
                      Chance& chance);
  // Whether trees may be grown: the verifier looks at tokens only, penalties at no path.
  [[nodiscard]] bool grows_trees() const;
  // Of a row behind `depth` drafted tokens: the n candidates that come first, and what the model
  // gives them.
  [[nodiscard]] std::vector<std::pair<TokenId, double>> best_of(const RowResults& results, int row,
                                                                int depth, std::size_t n_committed,
                                                                int n, Chance& chance) const;
  // Of the token on the chain, after add_candidates(); or of a row's best token at temperature 1.
  [[nodiscard]] double probability() const { return probability_; }
  void note_best(const RowResults& results, int row);
  // A leaf that is its row's second choice beside the best; false when there is none.
  [[nodiscard]] bool add_second(const RowResults& results, int row, int depth,
                                DraftProposal& proposal);

  // Whether the best token of a row is one that must not be said.
  [[nodiscard]] bool is_banned(TokenId token) const;
  [[nodiscard]] bool has_bans() const { return !banned_.empty(); }

  [[noreturn]] static void throw_not_finite();

 private:
  void choose_mode(const DraftModelOptions& options);
  void choose_distribution(const DraftModelOptions& options);
  void choose_output(int vocab_size);
  void note_bans(int vocab_size);
  void add_siblings(const RowResults& results, const DraftPoint& at,
                    const Distribution& distribution, DraftProposal& proposal, Chance& chance);
  [[nodiscard]] double best_probability(const RowResults& results, int row) const;
  [[nodiscard]] Distribution distribution_of(const RowResults& results, int row,
                                             std::span<const TokenId> path,
                                             std::uint64_t position) const;

  DraftSetup setup_;  // its sampling is the draft's own
  int branch_ = 1;
  DraftMode mode_ = DraftMode::kGreedy;
  RowOutput output_ = RowOutput::kLogits;
  int top_k_ = 0;                       // of RowOutput::kTop
  bool carries_distributions_ = false;  // proposals tell them
  bool siblings_ = false;
  bool takes_best_ = false;
  std::vector<TokenId> banned_;  // left out of the best
  double probability_ = 0.0;     // of the last token on the chain
};

}  // namespace specdec
