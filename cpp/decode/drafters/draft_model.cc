// A smaller model with its own cache proposes a chain, or a comb: at each depth several candidates,
// the first of which continues the chain.
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "decode/draft_record.h"
#include "decode/drafter.h"
#include "decode/drafters/draft_chain.h"
#include "decode/drafters/draft_length.h"
#include "decode/token_cache.h"

namespace specdec {
namespace {

class DraftModel final : public ChainDrafter {
 public:
  DraftModel(const DraftModelOptions& options, TokenCache& cache)
      : ChainDrafter(options), cache_(cache) {}

  std::string_view name() const override { return "model"; }
  int branch() const override { return options_.branch; }

  int n_behind(std::span<const TokenId> committed) override {
    align(committed);
    const int lag = static_cast<int>(committed.size()) - start_ - cache_.length();
    return wants_window(lag) ? setup_.first_window : lag;
  }
  int n_unread() const override { return start_; }
  // With room for a draft behind it; what failed once would again.
  bool can_read_all(std::span<const TokenId> committed) const override {
    return !unreadable_ &&
           static_cast<int>(committed.size()) + DraftRecord::kMostTokens <= cache_.scorer().n_ctx();
  }
  void read_all(std::span<const TokenId> committed) override {
    unreadable_ = true;  // unless it comes to an end
    check_known(committed);
    start_ = 0;
    cache_.clear();
    cache_.read(committed.first(committed.size() - 1), setup_.cancel);
    unreadable_ = false;
  }

  void begin(const DraftSetup& setup, std::span<const TokenId> prompt) override {
    start(setup, prompt, cache_.scorer().vocab_size());
    fresh_ = true;
    unreadable_ = false;
    max_steps_ = sampler_.takes_best() ? cache_.scorer().max_steps() : 1;
    followed_ =
        max_steps_ > 1 && setup_.target != nullptr && setup_.target->can_follow(cache_.scorer());
    met_ban_ = false;
    length_.begin(max_steps_);
  }

  DraftProposal propose(std::span<const TokenId> committed, int max_tokens,
                        Chance& chance) override;

  // Where one chain is a draft, and a short enough one, the target can take it unseen. What a rule
  // is going to say is guessed from what it said of late.
  std::optional<DraftPlan> plan(std::span<const TokenId> committed, int max_tokens) override;
  DraftProposal conclude(const DraftPlan& plan) override;

  std::vector<TreeNode> grow(std::span<const TokenId> committed, const TreeBounds& bounds,
                             Chance& chance) override;

  void commit(const CommitInfo& info) override {
    head_.add(info.committed.last(static_cast<std::size_t>(info.n_new)),
              cache_.scorer().vocab_size());
  }

  void align(std::span<const TokenId> committed) override {
    if (static_cast<int>(committed.size()) <= start_) {  // another text
      start_ = 0;
      cache_.clear();
    }
    const std::span<const TokenId> seen = committed.subspan(static_cast<std::size_t>(start_));
    cache_.align(seen, std::max(static_cast<int>(seen.size()) - 1, 0));
  }

  void reset() override {
    start_ = 0;
    cache_.clear();
  }

 private:
  class Rows;

  // Lines the cache up, and returns how many tokens it has room to draft.
  int prepare(std::span<const TokenId> committed, int max_tokens) {
    const TokenScorer& scorer = cache_.scorer();
    // The last drafted token is never fed, so committed + n - 1 rows are needed.
    const auto room = [&] {
      return scorer.n_ctx() - static_cast<int>(committed.size()) + start_ + 1;
    };
    align(committed);
    const int lag = static_cast<int>(committed.size()) - start_ - cache_.length();
    if (wants_window(lag) || (setup_.first_window > 0 && room() < max_tokens)) {
      const int window = std::min(setup_.first_window, scorer.n_ctx() / 2);
      start_ = std::max(0, static_cast<int>(committed.size()) - window);
      cache_.clear();
    }
    fresh_ = false;
    return std::min(max_tokens, room());
  }

  [[nodiscard]] bool wants_window(int lag) const {
    // What it has read of this text is worth keeping for a while.
    return setup_.first_window > 0 &&
           lag > (fresh_ ? setup_.first_window : std::max(setup_.first_window, kMaxLag));
  }

  void check_known(std::span<const TokenId> tokens) {
    const auto vocab_size = static_cast<TokenId>(cache_.scorer().vocab_size());
    for (const TokenId token : tokens) {
      if (token >= vocab_size) {
        throw Error(ErrorCode::kUnsupported, "the draft model has no token " +
                                                 std::to_string(token) + ", its vocabulary has " +
                                                 std::to_string(vocab_size));
      }
    }
  }

  // Feeds every committed token the cache lacks; the last one gives the first of at most n drafted
  // tokens.
  void catch_up(std::span<const TokenId> committed, int n) {
    std::span<const TokenId> lacking =
        committed.subspan(static_cast<std::size_t>(start_ + cache_.length()));
    check_known(lacking);
    constexpr std::size_t kPiece = TokenCache::kPieceRows;
    if (lacking.size() > kPiece) {
      const std::size_t head = (lacking.size() - 1) / kPiece * kPiece;
      cache_.read(lacking.first(head), setup_.cancel);
      lacking = lacking.subspan(head);
    }
    throw_if_cancelled(setup_.cancel);
    // What a rule is going to say cannot be known before: no more steps than it wanted of late.
    feed(lacking, setup_.length_rule != nullptr ? std::min(n, length_.watched()) : n);
  }

  // Feeds a chain, and as much of what follows as can be had at once, up to n tokens in all.
  void feed(std::span<const TokenId> tokens, int n) {
    row_ = static_cast<int>(tokens.size()) - 1;
    const int n_steps = std::min(n, max_steps_);
    if (n_steps > 1) {
      n_ahead_ = cache_.append_steps(tokens, n_steps, sampler_.output(), sampler_.top_k(),
                                     head_.blocks()) -
                 1;
    } else {
      n_ahead_ = 0;
      cache_.append(tokens, sampler_.output(), sampler_.top_k(), head_.blocks());
    }
  }

  // To the row of the token just drafted, behind which n are still wanted.
  void go_on(TokenId token, int n) {
    if (n_ahead_ > 0 && cache_.scorer().argmax(row_) == token) {
      --n_ahead_;
      ++row_;
      return;
    }
    // Another token than the best was chosen.
    if (n_ahead_ > 0) cache_.truncate(cache_.length() - n_ahead_);
    feed({&token, 1}, setup_.length_rule != nullptr ? 1 : n);
  }

  static constexpr int kMaxLag = 64;
  static constexpr std::size_t kMaxUnseenRows = 32;  // more: a wait is no matter

  TokenCache& cache_;
  int max_steps_ = 1;  // that can be had at once
  DraftLength length_;
  bool followed_ = false;  // the target can take what the model finds unseen
  bool met_ban_ = false;   // the last draft did; the next one is best watched
  int n_wanted_ = 0;       // tokens of the planned draft at most
  int row_ = 0;            // of the last forward, behind the last drafted token
  int n_ahead_ = 0;        // rows behind it that hold the best tokens already
  bool fresh_ = true;      // has not drafted in this request
  bool unreadable_ = false;
  int start_ = 0;  // the cache holds the committed tokens from here on
};

DraftProposal DraftModel::propose(std::span<const TokenId> committed, int max_tokens,
                                  Chance& chance) {
  throw_failure();
  const int n = prepare(committed, max_tokens);
  if (n < 1) return {};
  met_ban_ = false;
  catch_up(committed, n);

  int n_drafted = 0;
  return draft_chain(cache_.scorer(), committed, row_, n, chance,
                     [&](TokenId token, int row, int n_more) {
                       ++n_drafted;
                       if (sampler_.has_bans() && cache_.scorer().argmax(row) != token)
                         met_ban_ = true;
                       if (n_more > 0) {
                         go_on(token, n_more);
                       } else if (setup_.length_rule != nullptr) {
                         length_.note(n_drafted, n);
                       }
                       return row_;
                     });
}

std::optional<DraftPlan> DraftModel::plan(std::span<const TokenId> committed, int max_tokens) {
  const bool has_rule = setup_.length_rule != nullptr;
  const int usual = has_rule ? length_.unseen() : max_tokens;
  if (!followed_ || met_ban_ || (has_rule && (usual == 0 || usual > max_steps_)))
    return std::nullopt;
  const int n = prepare(committed, max_tokens);
  const int n_steps = std::min(n, usual);
  const std::span<const TokenId> lacking =
      committed.subspan(static_cast<std::size_t>(start_ + cache_.length()));
  if (n < 1 || n_steps > max_steps_ || lacking.size() > kMaxUnseenRows) return std::nullopt;
  check_known(lacking);
  throw_if_cancelled(setup_.cancel);
  n_wanted_ = n;
  DraftPlan plan;
  plan.scorer = &cache_.scorer();
  plan.steps =
      cache_.steps_behind(lacking, n_steps, sampler_.output(), sampler_.top_k(), head_.blocks());
  const int n_best = plan.steps.batch.n_best();
  const int n_siblings = sampler_.siblings() ? setup_.length_rule->n_planned_siblings(n_steps) : 0;
  std::int32_t parent = -1;
  for (int depth = 0; depth < n_steps; ++depth) {
    const auto at = static_cast<std::int32_t>(plan.picks.size());
    for (int rank = 0; rank < (depth < n_siblings ? 2 : 1); ++rank) {
      plan.picks.push_back(depth * n_best + rank);
      if (n_siblings > 0) plan.parents.push_back(parent);
    }
    parent = at;
  }
  return plan;
}

DraftProposal DraftModel::conclude(const DraftPlan& plan) {
  const Steps& steps = plan.steps;
  if (steps.error) std::rethrow_exception(steps.error);
  cache_.note(steps);
  DraftProposal proposal;
  proposal.chosen = true;
  const auto planned = [&](int i) {
    return static_cast<std::size_t>(i) < plan.parents.size()
               ? plan.parents[static_cast<std::size_t>(i)]
               : i - 1;
  };
  for (int depth = 0; depth < steps.n_done; ++depth) {
    const int row = static_cast<int>(steps.batch.tokens.size()) - 1 + depth;
    const TokenId token = cache_.scorer().argmax(row);
    if (token < 0) DraftSampler::throw_not_finite();
    // The model has gone where the draft must not go.
    met_ban_ = sampler_.is_banned(token);
    if (met_ban_ || token >= setup_.vocab_size) break;
    const int at = proposal.size();
    proposal.tokens.push_back(token);
    if (setup_.length_rule != nullptr) sampler_.note_best(cache_.scorer(), row);
    // The next row is a leaf beside this token's.
    const bool has_sibling =
        static_cast<std::size_t>(at) + 1 < plan.picks.size() && planned(at + 1) == planned(at);
    if (has_sibling && !sampler_.add_second(cache_.scorer(), row, depth, proposal)) break;
    if (ends_text(token) || depth + 1 == n_wanted_) break;
    if (setup_.length_rule != nullptr) {
      const bool goes_on = setup_.length_rule->keep_going(depth + 1, sampler_.probability());
      length_.note_unseen(depth + 1, steps.n_steps, goes_on);
      if (!goes_on) break;
    }
  }
  if (proposal.size() > 0 && !plan.parents.empty()) {
    proposal.parents.assign(plan.parents.begin(), plan.parents.begin() + proposal.size());
    if (proposal.is_chain()) proposal.parents.clear();
  }
  return proposal;
}

class DraftModel::Rows final : public ChainDrafter::Tree {
 public:
  Rows(DraftModel& model, std::size_t n_committed, const TreeBounds& bounds, Chance& chance)
      : Tree(model, model.cache_.scorer(), n_committed, bounds, chance), model_(model) {}

  int read_text(std::span<const TokenId> lacking) {
    model_.cache_.append(lacking, model_.sampler_.output(), top_k_, model_.head_.blocks());
    return static_cast<int>(lacking.size()) - 1;
  }
  bool feed(std::span<const TokenId> tokens, std::span<const std::int32_t> parents,
            int n_known) override {
    TokenScorer& scorer = model_.cache_.scorer();
    const int n_text = model_.cache_.length();
    if (scorer.n_ctx() - n_text < static_cast<int>(tokens.size())) return false;
    throw_if_cancelled(model_.setup_.cancel);
    scorer.truncate(n_text);
    scorer.forward({.tokens = tokens,
                    .parents = parents,
                    .first_output_row = n_known,
                    .output = model_.sampler_.output(),
                    .top_k = top_k_,
                    .head_blocks = model_.head_.blocks()});
    return true;
  }

 private:
  DraftModel& model_;
};

std::vector<TreeNode> DraftModel::grow(std::span<const TokenId> committed, const TreeBounds& bounds,
                                       Chance& chance) {
  if (!sampler_.grows_trees() || prepare(committed, 1) < 1) return {};
  const std::span<const TokenId> lacking =
      committed.subspan(static_cast<std::size_t>(start_ + cache_.length()));
  check_known(lacking);
  Rows tree(*this, committed.size(), bounds, chance);
  const int root_row = tree.read_text(lacking);
  std::vector<TreeNode> nodes = grow_tree(tree, root_row, bounds);
  cache_.scorer().truncate(cache_.length());
  return nodes;
}

}  // namespace

std::unique_ptr<ModelDrafter> make_model_drafter(const DraftModelOptions& options,
                                                 TokenCache& cache) {
  return std::make_unique<DraftModel>(options, cache);
}

std::unique_ptr<Drafter> make_draft_model(const DraftModelOptions& options,
                                          const DrafterModels& models) {
  if (models.draft == nullptr) throw_invalid("drafter 'model' needs a draft model");
  return make_model_drafter(options, *models.draft);
}

}  // namespace specdec
