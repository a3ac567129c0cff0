// Guesses what the target will say next.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/token.h"
#include "decode/draft_tree.h"
#include "decode/drafter_options.h"
#include "decode/token_cache.h"
#include "decode/token_scorer.h"
#include "decode/verifier.h"
#include "sampling/chance.h"
#include "sampling/params.h"
#include "sampling/proposal.h"

namespace specdec {

// Asked by a draft model after each token it has included.
class LengthRule {
 public:
  virtual ~LengthRule() = default;
  // Shall another candidate stand beside the last of n_drafted tokens, as a leaf? rank: 1 for the
  // model's second choice, and so on; probability: what it gave its first choice; conditional: what
  // it gives this one should all before it be wrong. Asked only when the setup allows siblings.
  [[nodiscard]] virtual bool wants_sibling(int /*n_drafted*/, int /*rank*/, double /*probability*/,
                                           double /*conditional*/) {
    return false;
  }
  // Then: shall it draft another token? probability as above.
  [[nodiscard]] virtual bool keep_going(int n_drafted, double probability) = 0;

  // Of a draft whose rows are fixed before anything is known about it: beside how many of its first
  // tokens the second choice is to stand. n_chain: tokens without them.
  [[nodiscard]] virtual int n_planned_siblings(int /*n_chain*/) { return 0; }
  // One of these was drafted. As wants_sibling(), before keep_going().
  virtual void note_sibling(int /*n_drafted*/, double /*conditional*/) {}
};

// A draft that the target's pass takes as it is found.
struct DraftPlan {
  TokenScorer* scorer = nullptr;
  Steps steps;
  // Of each token that the proposal can have, in its order: the result of the steps that it is, as
  // a pick of Steps, and the token it follows, as in DraftProposal.
  std::vector<std::int32_t> picks;
  std::vector<std::int32_t> parents;
};

// What holds for one request.
struct DraftSetup {
  SamplingParams sampling;   // the request's, end-of-sequence bans of ignore_eos included
  std::vector<TokenId> eog;  // a draft ends with the first of them
  int vocab_size = 0;        // of the target: only lower ids may be proposed
  VerifierTraits verifier;
  const TokenScorer* target = nullptr;  // that may follow the drafter's model; null: it does not
  // Under which texts are found in a memory of earlier requests; not set: they are not to be used.
  std::optional<std::uint64_t> memory_key = {};
  const std::atomic<bool>* cancel = nullptr;
  LengthRule* length_rule = nullptr;  // null: as many tokens as asked for
  // The rule may ask for siblings: the verifier takes trees, and any candidates at that.
  bool siblings = false;
  // > 0: a model starts from so many of the last tokens, and again when it lags far behind.
  int first_window = 0;
};

// Tokens that were just committed.
struct CommitInfo {
  std::span<const TokenId> committed;                  // everything, prompt included
  int n_new = 0;                                       // how many at the end are new
  std::span<const std::vector<TokenId>> target_top_k;  // [n_new] if wanted_top_k() > 0, else empty
  // Tokens fed in the pass and the target's best tokens after each, rejected ones included; empty
  // unless wants_all_rows().
  std::span<const TokenId> row_tokens = {};
  std::span<const std::vector<TokenId>> row_top_k = {};
  // Of the rows that the new tokens follow, [n_new, floats of a row]; empty unless wanted_taps().
  std::span<const float> taps = {};
};

// Rows of the prompt that were just read, of those that want their taps.
struct ReadInfo {
  std::span<const TokenId> text;  // the whole prompt: at least one token follows the last row
  int first_row = 0;
  std::span<const float> taps;  // [n_rows, floats of a row]
};

class FeatureCache;
class ModelDrafter;

// Of lookups whose drafts are weighed: the longest one, and how much longer than its match it is.
inline constexpr int kWeighedMax = 63;  // a pass of 64 rows
inline constexpr int kWeighedFactor = 3;

// A drafter may be wrong but must be honest: tokens it draws at random carry the distribution they
// were drawn from, and a token once drawn is never withheld because of its own probability.
class Drafter {
 public:
  virtual ~Drafter() = default;

  [[nodiscard]] virtual std::string_view name() const = 0;
  // As it was told; and its longest draft where it was told none.
  [[nodiscard]] virtual DraftLengths lengths() const = 0;
  [[nodiscard]] virtual int default_draft_max() const = 0;
  // The same where a controller weighs what is worth its row: of a lookup what costs it nothing.
  [[nodiscard]] virtual int weighed_draft_max() const { return default_draft_max(); }
  // How many of the target's best tokens per emitted position commit() wants to see.
  [[nodiscard]] virtual int wanted_top_k() const { return 0; }
  // Whether it wants to see them for every row of the pass too.
  [[nodiscard]] virtual bool wants_all_rows() const { return false; }
  // Layers of the target whose input it wants to see of every row that stays, as Batch::taps.
  [[nodiscard]] virtual std::span<const std::int32_t> wanted_taps() const { return {}; }
  // Then: how many rows of a text it knows from its beginning, or from where it began.
  [[nodiscard]] virtual int n_followed(std::span<const TokenId> /*text*/) { return 0; }
  virtual void read(const ReadInfo&) {}
  // Whether what it proposes depends on earlier requests too.
  [[nodiscard]] virtual bool keeps() const { return false; }
  // Null: proposals cost no passes of a model, they are looked up.
  [[nodiscard]] virtual ModelDrafter* model() { return nullptr; }

  // A new request. Throws Error(kInvalidArgument) when its options do not fit the verifier.
  virtual void begin(const DraftSetup& setup, std::span<const TokenId> prompt) = 0;
  // At most max_tokens (>= 1) tokens that continue `committed`, a model's times its branch(); none
  // when there is nothing to say.
  [[nodiscard]] virtual DraftProposal propose(std::span<const TokenId> committed, int max_tokens,
                                              Chance& chance) = 0;
  virtual void commit(const CommitInfo&) {}
  // Forgets everything.
  virtual void reset() = 0;
  // Of one that keeps: a copy that goes on by itself, for a fork. Null: a new one will do.
  [[nodiscard]] virtual std::unique_ptr<Drafter> fork() const { return nullptr; }
};

// One whose proposals cost passes of a model.
class ModelDrafter : public Drafter {
 public:
  [[nodiscard]] ModelDrafter* model() override { return this; }

  // Candidates per depth that a proposal of the present request may hold.
  [[nodiscard]] virtual int branch() const { return 1; }
  // Rows its model has to read before it can draft after `committed`.
  [[nodiscard]] virtual int n_behind(std::span<const TokenId>) { return 1; }
  // Tokens before the window it started from, and a way to read them all.
  [[nodiscard]] virtual int n_unread() const { return 0; }
  [[nodiscard]] virtual bool can_read_all(std::span<const TokenId>) const { return true; }
  virtual void read_all(std::span<const TokenId>) {}
  // propose() in two halves, for a target that follows: what its model is to do; none: it has to be
  // propose().
  [[nodiscard]] virtual std::optional<DraftPlan> plan(std::span<const TokenId>,
                                                      int /*max_tokens*/) {
    return std::nullopt;
  }
  // When that is done: what is proposed, which is the first tokens of the plan. Throws the error of
  // the steps.
  [[nodiscard]] virtual DraftProposal conclude(const DraftPlan&) { return {}; }
  // Of a request whose setup allows siblings: the tree that it would draft within these bounds, of
  // which nothing stays in its cache; empty: it drafts none.
  [[nodiscard]] virtual std::vector<TreeNode> grow(std::span<const TokenId>, const TreeBounds&,
                                                   Chance&) {
    return {};
  }
  // Brings own caches in line: afterwards they hold a part of `committed` without its last token: a
  // prefix, or what follows the start of a window.
  // Called after every round, and also when one ended by an exception.
  virtual void align(std::span<const TokenId>) = 0;
};

// What drafters may stand on; those that need nothing ignore it.
struct DrafterModels {
  TokenCache* draft = nullptr;
  TokenCache* layers = nullptr;      // of the target's first layers, in its own cache
  FeatureCache* features = nullptr;  // of a head on the target's hidden states
};

struct DrafterInfo {
  std::string_view name;
  bool needs_model;
  DrafterOptions (*defaults)();
  std::unique_ptr<Drafter> (*make)(const DrafterOptions&, const DrafterModels&);
};

// Every drafter of drafters/drafters.def, in the order of DrafterOptions.
[[nodiscard]] std::span<const DrafterInfo> all_drafters();
// Throws Error(kInvalidArgument) for a missing model or an option out of range.
[[nodiscard]] std::unique_ptr<Drafter> make_drafter(const DrafterOptions& options,
                                                    const DrafterModels& models);

// Errors of a drafter that end its work but not the request.
[[nodiscard]] bool is_survivable(ErrorCode code);

}  // namespace specdec
