// A smaller model with its own cache proposes a chain, or a comb: at each depth several candidates,
// the first of which continues the chain.
#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "decode/drafter.h"
#include "decode/drafters/draft_head.h"
#include "decode/drafters/draft_length.h"
#include "decode/token_cache.h"
#include "sampling/candidates.h"
#include "sampling/logprobs.h"
#include "sampling/warp.h"

namespace specdec {
namespace {

class DraftModel final : public Drafter {
 public:
  DraftModel(const DraftModelOptions& options, const DrafterModels& models)
      : cache_(*models.draft, models.draft_cached), options_(options) {
    SamplingParams probe;  // its validation names the options
    if (options_.temperature) probe.temperature = *options_.temperature;
    if (options_.top_k) probe.top_k = *options_.top_k;
    probe.validate();
    if (options_.branch < 1 || options_.branch > kMaxBranch) {
      throw_invalid("branch must be in [1, " + std::to_string(kMaxBranch) + "], got " +
                    std::to_string(options_.branch));
    }
    if (options_.top_k && *options_.top_k > 0 && *options_.top_k < options_.branch) {
      throw_invalid("draft_top_k must be at least branch (" + std::to_string(options_.branch) +
                    "), got " + std::to_string(*options_.top_k));
    }
  }

  std::string_view name() const override { return "model"; }
  DraftLengths lengths() const override { return options_.lengths; }
  int default_draft_max() const override { return 4; }
  int branch() const override { return options_.branch; }
  bool uses_model() const override { return true; }

  int n_behind(std::span<const TokenId> committed) override {
    align(committed);
    const int lag = static_cast<int>(committed.size()) - start_ - cache_.length();
    return wants_window(lag) ? setup_.first_window : lag;
  }
  int n_unread() const override { return start_; }
  void read_all(std::span<const TokenId> committed) override {
    start_ = 0;
    cache_.clear();
    check_known(committed);
    cache_.read(committed.first(committed.size() - 1), setup_.cancel);
  }

  void begin(const DraftSetup& setup, std::span<const TokenId> prompt) override {
    setup_ = setup;
    fresh_ = true;
    mode_ = options_.mode;
    SamplingParams& params = setup_.sampling;
    if (options_.temperature) params.temperature = *options_.temperature;
    if (options_.top_k) params.top_k = *options_.top_k;
    if (mode_ == DraftMode::kAuto) {
      if (params.greedy()) {
        mode_ = DraftMode::kGreedy;
      } else if (setup.verifier.position_noise) {
        mode_ = DraftMode::kCoupled;
      } else {
        mode_ = setup.verifier.reads_draft_probs ? DraftMode::kSampled : DraftMode::kGreedy;
      }
    }
    // A greedy target has no noise to share.
    if (mode_ == DraftMode::kCoupled && setup.sampling.greedy()) mode_ = DraftMode::kGreedy;
    if (mode_ == DraftMode::kCoupled && !setup.verifier.position_noise) {
      throw_invalid("coupled drafts need a verifier that draws with the same noise ('match')");
    }
    // All on the best token: there is nothing to draw, and no law to carry.
    if (params.greedy()) mode_ = DraftMode::kGreedy;
    if (options_.branch > 1 && !setup.verifier.trees) {
      throw_invalid("branch " + std::to_string(options_.branch) +
                    " needs a verifier that takes trees, such as 'topk_importance'; got one that "
                    "takes chains only");
    }
    carries_laws_ = setup.verifier.reads_top_k || mode_ == DraftMode::kSampled;
    const bool needs_law = options_.branch > 1 || setup.verifier.reads_top_k;
    if (mode_ == DraftMode::kGreedy) {
      params.temperature = needs_law ? 1.0 : 0.0;  // a law to choose the best of
      params.top_p = 1.0;
      params.min_p = params.noise_scale = 0.0;
    }
    if (needs_law && !options_.top_k && (params.top_k == 0 || mode_ == DraftMode::kGreedy)) {
      params.top_k = std::max(DraftModelOptions::kDefaultTopK, options_.branch);
    }
    const int vocab_size = cache_.scorer().vocab_size();
    top_k_ = vocab_size <= setup_.vocab_size ? params.needs_only_top(vocab_size) : 0;
    if (top_k_ == 0 || top_k_ > kMaxTopK) {
      output_ = RowOutput::kLogits;
    } else {
      // The length rule wants probabilities.
      const bool best_suffices = params.greedy() && setup_.length_rule == nullptr && !carries_laws_;
      output_ = best_suffices ? RowOutput::kArgmax : RowOutput::kTop;
    }
    note_bans(vocab_size);
    siblings_ = setup_.siblings && banned_.empty() && setup_.length_rule != nullptr &&
                output_ == RowOutput::kTop && mode_ != DraftMode::kSampled && !carries_laws_ &&
                options_.branch == 1;
    if (siblings_) top_k_ = std::min(std::max(top_k_, kMaxSiblings + 1), vocab_size);
    const bool takes_best =
        mode_ == DraftMode::kGreedy && options_.branch == 1 && output_ != RowOutput::kLogits;
    max_steps_ = takes_best && !carries_laws_ ? cache_.scorer().max_chain_steps() : 1;
    followed_ =
        max_steps_ > 1 && setup_.target != nullptr && setup_.target->can_follow(cache_.scorer());
    met_ban_ = false;
    failure_ = nullptr;
    length_.begin(max_steps_);
    head_.begin(std::min(vocab_size, setup_.vocab_size), options_.head_tokens);
    head_.add(setup_.eog, vocab_size);
    head_.add(prompt, vocab_size);
  }

  DraftProposal propose(std::span<const TokenId> committed, int max_tokens,
                        Chance& chance) override {
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    DraftProposal proposal;
    const int n = prepare(committed, max_tokens);
    if (n < 1) return proposal;
    met_ban_ = false;
    catch_up(committed, n);

    std::vector<TokenId> path;  // committed + drafted, only when penalties look at it
    if (setup_.sampling.has_penalties()) path.assign(committed.begin(), committed.end());
    proposal.chosen = mode_ != DraftMode::kSampled;
    std::int32_t parent = -1;
    for (int depth = 0;; ++depth) {
      const auto first = static_cast<std::int32_t>(proposal.size());
      const auto add = [&] {
        add_candidates(row_, path, committed.size(), depth, parent, proposal, chance);
      };
      if (!succeeds(proposal, add)) return proposal;
      const TokenId token = proposal.tokens[static_cast<std::size_t>(first)];
      if (!banned_.empty() && cache_.scorer().argmax(row_) != token) met_ban_ = true;
      const bool ends = std::find(setup_.eog.begin(), setup_.eog.end(), token) != setup_.eog.end();
      const bool goes_on = !ends && depth + 1 < n &&
                           (setup_.length_rule == nullptr ||
                            setup_.length_rule->keep_going(depth + 1, probability_));
      if (!goes_on) {
        if (siblings_ && proposal.is_chain()) proposal.parents.clear();
        if (setup_.length_rule != nullptr) length_.note(depth + 1, n);
        return proposal;
      }
      if (setup_.sampling.has_penalties()) path.push_back(token);
      throw_if_cancelled(setup_.cancel);
      if (!succeeds(proposal, [&] { go_on(token, n - depth - 1); })) return proposal;
      parent = first;
    }
  }

  // Where one chain is a draft, and a short enough one, the target can take it unseen. What a rule
  // is going to say is guessed from what it said of late.
  std::optional<DraftPlan> plan(std::span<const TokenId> committed, int max_tokens) override {
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
    plan.chain = cache_.chain(lacking, n_steps, output_, top_k_, head_.blocks());
    const int n_best = plan.chain.batch.n_best();
    const int n_siblings = siblings_ ? setup_.length_rule->n_planned_siblings(n_steps) : 0;
    std::int32_t parent = -1;
    for (int depth = 0; depth < n_steps; ++depth) {
      const auto at = static_cast<std::int32_t>(plan.sources.size());
      for (int rank = 0; rank < (depth < n_siblings ? 2 : 1); ++rank) {
        plan.sources.push_back(depth * n_best + rank);
        if (n_siblings > 0) plan.parents.push_back(parent);
      }
      parent = at;
    }
    return plan;
  }

  DraftProposal conclude(const DraftPlan& plan) override {
    const DraftChain& chain = plan.chain;
    if (chain.error) std::rethrow_exception(chain.error);
    cache_.note(chain);
    DraftProposal proposal;
    proposal.chosen = true;
    const auto planned = [&](int i) {
      return static_cast<std::size_t>(i) < plan.parents.size()
                 ? plan.parents[static_cast<std::size_t>(i)]
                 : i - 1;
    };
    for (int depth = 0; depth < chain.n_done; ++depth) {
      const int row = static_cast<int>(chain.batch.tokens.size()) - 1 + depth;
      const TokenId token = cache_.scorer().argmax(row);
      if (token < 0) throw_not_finite();
      // The chain has gone where the draft must not go.
      met_ban_ = std::find(banned_.begin(), banned_.end(), token) != banned_.end();
      if (met_ban_ || token >= setup_.vocab_size) break;
      const int at = proposal.size();
      proposal.tokens.push_back(token);
      if (setup_.length_rule != nullptr) probability_ = best_probability(row);
      // The next row is a leaf beside this token's.
      const bool has_sibling =
          static_cast<std::size_t>(at) + 1 < plan.sources.size() && planned(at + 1) == planned(at);
      if (has_sibling && !add_planned_sibling(row, depth, proposal)) break;
      if (std::find(setup_.eog.begin(), setup_.eog.end(), token) != setup_.eog.end()) break;
      if (depth + 1 == n_wanted_) break;
      if (setup_.length_rule != nullptr) {
        const bool goes_on = setup_.length_rule->keep_going(depth + 1, probability_);
        length_.note_unseen(depth + 1, chain.n_steps, goes_on);
        if (!goes_on) break;
      }
    }
    if (proposal.size() > 0 && !plan.parents.empty()) {
      proposal.parents.assign(plan.parents.begin(), plan.parents.begin() + proposal.size());
      if (proposal.is_chain()) proposal.parents.clear();
    }
    return proposal;
  }

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

  [[noreturn]] static void throw_not_finite() {
    throw Error(ErrorCode::kNumerical, "the draft model's logits are not finite");
  }

  // The second choice of a row; false when there is none.
  bool add_planned_sibling(int row, int depth, DraftProposal& proposal) {
    const std::span<const TopToken> top = cache_.scorer().top(row);
    if (top.size() < 2 || top[1].token >= setup_.vocab_size) return false;
    const double probability = std::exp(static_cast<double>(top[1].logit) -
                                        static_cast<double>(cache_.scorer().log_sum_exp(row)));
    const double left = 1.0 - probability_;
    proposal.tokens.push_back(top[1].token);
    setup_.length_rule->note_sibling(depth + 1, left > 0 ? std::min(probability / left, 1.0) : 1.0);
    return true;
  }

  [[nodiscard]] bool wants_window(int lag) const {
    // What it has read of this text is worth keeping for a while.
    return setup_.first_window > 0 &&
           lag > (fresh_ ? setup_.first_window : std::max(setup_.first_window, kMaxLag));
  }

  // Where tokens are only forbidden, the best of the others is among a few of the best.
  void note_bans(int vocab_size) {
    banned_.clear();
    const SamplingParams& params = setup_.sampling;
    if (output_ != RowOutput::kLogits || !params.greedy() || params.has_penalties() ||
        vocab_size > setup_.vocab_size ||
        params.logit_bias.size() >= static_cast<std::size_t>(std::min(vocab_size, kMaxTopK))) {
      return;
    }
    for (const auto& [token, bias] : params.logit_bias) {
      if (bias > -std::numeric_limits<float>::infinity()) return banned_.clear();
      banned_.push_back(token);
    }
    output_ = RowOutput::kTop;
    top_k_ = static_cast<int>(banned_.size()) + 1;
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
      n_ahead_ = cache_.append_chain(tokens, n_steps, output_, top_k_, head_.blocks()) - 1;
    } else {
      n_ahead_ = 0;
      cache_.append(tokens, output_, top_k_, head_.blocks());
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

  // The candidates of one depth, and the law they come from when the verifier wants it.
  void add_candidates(int row, std::span<const TokenId> path, std::size_t n_committed, int depth,
                      std::int32_t parent, DraftProposal& proposal, Chance& chance) {
    const TokenScorer& scorer = cache_.scorer();
    std::vector<TokenId> tokens;
    Distribution law;
    if (output_ == RowOutput::kArgmax) {
      tokens = {scorer.argmax(row)};
      if (tokens[0] < 0) throw_not_finite();
    } else {
      law = law_of(row, path, n_committed + static_cast<std::size_t>(depth));
      switch (mode_) {
        case DraftMode::kSampled:
          tokens = draw_candidates(law, options_.branch, chance);
          break;
        case DraftMode::kCoupled:
          tokens = draw_candidates_at(law, options_.branch, depth, chance);
          break;
        default:
          tokens = best_candidates(law, options_.branch);
      }
    }
    if (setup_.length_rule != nullptr) {
      probability_ = law.size() > 1 ? law.prob(tokens[0]) : best_probability(row);
    }
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      proposal.tokens.push_back(tokens[i]);
      if (options_.branch > 1 || siblings_) proposal.parents.push_back(parent);
      if (carries_laws_) proposal.probs.emplace_back();
      if (carries_laws_ && i == 0) proposal.probs.back() = std::move(law);
    }
    if (siblings_) add_siblings(row, law, depth, parent, proposal, chance);
  }

  // Leaves beside the token just included, as long as the length rule wants them.
  void add_siblings(int row, const Distribution& law, int depth, std::int32_t parent,
                    DraftProposal& proposal, Chance& chance) {
    const TokenScorer& scorer = cache_.scorer();
    const std::span<const TopToken> top = scorer.top(row);
    // Under shared noise the runners-up are those of the noisy ranking.
    std::vector<TokenId> drawn;
    if (mode_ == DraftMode::kCoupled) {
      drawn = draw_candidates_at(law, kMaxSiblings + 1, depth, chance);
    }
    double left = 1.0 - probability_;
    for (int rank = 1; rank <= kMaxSiblings && left > 0.0; ++rank) {
      const auto at = static_cast<std::size_t>(rank);
      TokenId token = -1;
      double probability = 0.0;
      if (mode_ == DraftMode::kCoupled) {
        if (at >= drawn.size()) return;
        token = drawn[at];
        probability = law.prob(token);
      } else {
        if (at >= top.size() || top[at].token < 0 || top[at].token >= setup_.vocab_size) return;
        token = top[at].token;
        probability = std::exp(static_cast<double>(top[at].logit) -
                               static_cast<double>(scorer.log_sum_exp(row)));
      }
      const double conditional = std::min(probability / left, 1.0);
      if (!setup_.length_rule->wants_sibling(depth + 1, rank, probability_, conditional)) return;
      proposal.tokens.push_back(token);
      proposal.parents.push_back(parent);
      left -= probability;
    }
  }

  // What the model gives its best token at temperature 1.
  double best_probability(int row) const {
    const TokenScorer& scorer = cache_.scorer();
    if (output_ == RowOutput::kTop) {
      return std::exp(static_cast<double>(scorer.top(row)[0].logit) -
                      static_cast<double>(scorer.log_sum_exp(row)));
    }
    return std::exp(token_logprobs(scorer.logits(row), scorer.argmax(row), 0).logprob);
  }

  Distribution law_of(int row, std::span<const TokenId> path, std::uint64_t position) const {
    const TokenScorer& scorer = cache_.scorer();
    if (output_ == RowOutput::kTop) {
      std::span<const TopToken> top = scorer.top(row);
      while (!top.empty() &&
             std::find(banned_.begin(), banned_.end(), top[0].token) != banned_.end())
        top = top.subspan(1);
      return warp_top(top.first(std::min(top.size(), static_cast<std::size_t>(top_k_))),
                      setup_.sampling, position);
    }
    std::span<const float> logits = scorer.logits(row);
    const auto n = std::min(logits.size(), static_cast<std::size_t>(setup_.vocab_size));
    return warp(logits.first(n), setup_.sampling, path, position);
  }

  static constexpr int kMaxBranch = 16;
  static constexpr int kMaxLag = 64;
  static constexpr int kMaxSiblings = 3;
  static constexpr std::size_t kMaxUnseenRows = 32;  // more: a wait is no matter

  TokenCache cache_;
  DraftModelOptions options_;
  DraftSetup setup_;
  DraftMode mode_ = DraftMode::kGreedy;
  RowOutput output_ = RowOutput::kLogits;
  int top_k_ = 0;              // of RowOutput::kTop
  bool carries_laws_ = false;  // proposals tell the laws
  bool siblings_ = false;      // the length rule may ask for leaves beside the chain
  int max_steps_ = 1;          // that can be had at once
  DraftLength length_;
  bool followed_ = false;  // the target can take what the model finds unseen
  bool met_ban_ = false;   // the last draft did; the next one is best watched
  int n_wanted_ = 0;       // tokens of the planned draft at most
  int row_ = 0;            // of the last forward, behind the last drafted token
  int n_ahead_ = 0;        // rows behind it that hold the best tokens already
  bool fresh_ = true;      // has not drafted in this request
  int start_ = 0;          // the cache holds the committed tokens from here on
  DraftHead head_;
  std::vector<TokenId> banned_;  // left out of the best
  double probability_ = 0.0;     // of the last token on the chain
  std::exception_ptr failure_;   // behind the last drawn draft
};

}  // namespace

std::unique_ptr<Drafter> make_draft_model(const DraftModelOptions& options,
                                          const DrafterModels& models) {
  if (models.draft == nullptr) throw_invalid("drafter 'model' needs a draft model");
  return std::make_unique<DraftModel>(options, models);
}

}  // namespace specdec
