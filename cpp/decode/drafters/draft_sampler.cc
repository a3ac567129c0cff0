#include "decode/drafters/draft_sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "base/error.h"
#include "sampling/candidates.h"
#include "sampling/logprobs.h"
#include "sampling/warp.h"

namespace specdec {
namespace {

constexpr int kMaxBranch = 16;
constexpr int kMaxSiblings = 3;
constexpr int kCoupledTop = 32;    // of a row, tokens that a coupled draft is chosen from
constexpr int kLargeVocab = 4096;  // where more of them would take long

double probability_of(const TopToken& token, double log_sum_exp) {
  return std::exp(static_cast<double>(token.logit) - log_sum_exp);
}

}  // namespace

void DraftSampler::throw_not_finite() {
  throw Error(ErrorCode::kNumerical, "the draft model's logits are not finite");
}

void DraftSampler::check(const DraftModelOptions& options) {
  SamplingParams probe;  // its validation names the options
  if (options.temperature) probe.temperature = *options.temperature;
  if (options.top_k) probe.top_k = *options.top_k;
  probe.validate();
  if (options.mode == DraftMode::kGreedy && options.temperature.value_or(0.0) > 0.0) {
    throw_invalid(
        "draft temperature must not be given for greedy drafts, which are the best "
        "tokens whatever it is: leave it out, or draft 'sampled' or 'coupled'; got " +
        std::to_string(*options.temperature));
  }
  if (options.branch < 1 || options.branch > kMaxBranch) {
    throw_invalid("branch must be in [1, " + std::to_string(kMaxBranch) + "], got " +
                  std::to_string(options.branch));
  }
  if (options.top_k && *options.top_k > 0 && *options.top_k < options.branch) {
    throw_invalid("draft_top_k must be at least branch (" + std::to_string(options.branch) +
                  "), got " + std::to_string(*options.top_k));
  }
}

void DraftSampler::begin(const DraftModelOptions& options, const DraftSetup& setup,
                         int vocab_size) {
  setup_ = setup;
  branch_ = options.branch;
  if (options.temperature) setup_.sampling.temperature = *options.temperature;
  if (options.top_k) setup_.sampling.top_k = *options.top_k;
  mode_ = options.mode;
  choose_mode(options);
  // A greedy target has no noise to share.
  if (mode_ == DraftMode::kCoupled && setup.sampling.greedy()) mode_ = DraftMode::kGreedy;
  if (mode_ == DraftMode::kCoupled && !setup.verifier.position_noise) {
    throw_invalid("coupled drafts need a verifier that draws with the same noise ('match')");
  }
  // All on the best token: there is nothing to draw, and no distribution to carry.
  if (setup_.sampling.greedy()) mode_ = DraftMode::kGreedy;
  if (branch_ > 1 && !setup.verifier.trees) {
    throw_invalid("branch " + std::to_string(branch_) +
                  " needs a verifier that takes trees, such as 'topk_importance'; got one that "
                  "takes chains only");
  }
  choose_distribution(options);
  choose_output(vocab_size);
}

void DraftSampler::choose_mode(const DraftModelOptions& options) {
  if (options.mode != DraftMode::kAuto) return;
  if (setup_.sampling.greedy()) {
    mode_ = DraftMode::kGreedy;
  } else if (setup_.verifier.position_noise) {
    mode_ = DraftMode::kCoupled;
  } else {
    mode_ = setup_.verifier.reads_draft_probs ? DraftMode::kSampled : DraftMode::kGreedy;
  }
}

void DraftSampler::choose_distribution(const DraftModelOptions& options) {
  SamplingParams& params = setup_.sampling;
  carries_distributions_ = setup_.verifier.reads_top_k || mode_ == DraftMode::kSampled;
  const bool needs_one = branch_ > 1 || setup_.verifier.reads_top_k;
  if (mode_ == DraftMode::kGreedy) {
    params.temperature = needs_one ? 1.0 : 0.0;  // one to choose the best of
    params.top_p = 1.0;
    params.min_p = params.noise_scale = 0.0;
  }
  if (needs_one && !options.top_k && (params.top_k == 0 || mode_ == DraftMode::kGreedy)) {
    params.top_k = std::max(DraftModelOptions::kDefaultTopK, branch_);
  }
}

void DraftSampler::choose_output(int vocab_size) {
  const SamplingParams& params = setup_.sampling;
  top_k_ = vocab_size <= setup_.vocab_size ? params.needs_only_top(vocab_size) : 0;
  // Nobody reads its distribution, and what the noise picks is nearly always among the best: they
  // spare the draft a pass over the vocabulary for each token.
  if (top_k_ == 0 && mode_ == DraftMode::kCoupled && !carries_distributions_ &&
      !params.has_penalties() && params.logit_bias.empty() && params.noise_scale == 0.0 &&
      vocab_size >= kLargeVocab && vocab_size <= setup_.vocab_size) {
    top_k_ = kCoupledTop;
  }
  if (top_k_ == 0 || top_k_ > kMaxTopK) {
    output_ = RowOutput::kLogits;
  } else {
    // The length rule wants probabilities.
    const bool best_suffices =
        params.greedy() && setup_.length_rule == nullptr && !carries_distributions_;
    output_ = best_suffices ? RowOutput::kArgmax : RowOutput::kTop;
  }
  note_bans(vocab_size);
  siblings_ = setup_.siblings && banned_.empty() && setup_.length_rule != nullptr &&
              output_ == RowOutput::kTop && mode_ != DraftMode::kSampled &&
              !carries_distributions_ && branch_ == 1;
  if (siblings_) top_k_ = std::min(std::max(top_k_, kMaxSiblings + 1), vocab_size);
  takes_best_ = mode_ == DraftMode::kGreedy && branch_ == 1 && output_ != RowOutput::kLogits &&
                !carries_distributions_;
}

// Where tokens are only forbidden, the best of the others is among a few of the best.
void DraftSampler::note_bans(int vocab_size) {
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

bool DraftSampler::is_banned(TokenId token) const {
  return std::find(banned_.begin(), banned_.end(), token) != banned_.end();
}

void DraftSampler::add_candidates(const RowResults& results, const DraftPoint& at,
                                  DraftProposal& proposal, Chance& chance) {
  std::vector<TokenId> tokens;
  Distribution distribution;
  if (output_ == RowOutput::kArgmax) {
    tokens = {results.argmax(at.row)};
    if (tokens[0] < 0) throw_not_finite();
  } else {
    distribution = distribution_of(results, at.row, at.path,
                                   at.n_committed + static_cast<std::size_t>(at.depth));
    switch (mode_) {
      case DraftMode::kSampled:
        tokens = draw_candidates(distribution, branch_, chance);
        break;
      case DraftMode::kCoupled:
        tokens = draw_candidates_at(distribution, branch_, at.depth, chance);
        break;
      default:
        tokens = best_candidates(distribution, branch_);
    }
  }
  if (setup_.length_rule != nullptr) {
    probability_ =
        distribution.size() > 1 ? distribution.prob(tokens[0]) : best_probability(results, at.row);
  }
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    proposal.tokens.push_back(tokens[i]);
    if (branch_ > 1 || siblings_) proposal.parents.push_back(at.parent);
    if (carries_distributions_) proposal.probs.emplace_back();
    if (carries_distributions_ && i == 0) proposal.probs.back() = std::move(distribution);
  }
  if (siblings_) add_siblings(results, at, distribution, proposal, chance);
}

// Leaves beside the token just included, as long as the length rule wants them.
void DraftSampler::add_siblings(const RowResults& results, const DraftPoint& at,
                                const Distribution& distribution, DraftProposal& proposal,
                                Chance& chance) {
  const std::span<const TopToken> top = results.top(at.row);
  const double log_sum_exp = static_cast<double>(results.log_sum_exp(at.row));
  // Under shared noise the runners-up are those of the noisy ranking.
  std::vector<TokenId> drawn;
  if (mode_ == DraftMode::kCoupled) {
    drawn = draw_candidates_at(distribution, kMaxSiblings + 1, at.depth, chance);
  }
  double left = 1.0 - probability_;
  for (int rank = 1; rank <= kMaxSiblings && left > 0.0; ++rank) {
    const auto i = static_cast<std::size_t>(rank);
    TokenId token = -1;
    double probability = 0.0;
    if (mode_ == DraftMode::kCoupled) {
      if (i >= drawn.size()) return;
      token = drawn[i];
      probability = distribution.prob(token);
    } else {
      if (i >= top.size() || top[i].token < 0 || top[i].token >= setup_.vocab_size) return;
      token = top[i].token;
      probability = probability_of(top[i], log_sum_exp);
    }
    const double conditional = std::min(probability / left, 1.0);
    if (!setup_.length_rule->wants_sibling(at.depth + 1, rank, probability_, conditional)) return;
    proposal.tokens.push_back(token);
    proposal.parents.push_back(at.parent);
    left -= probability;
  }
}

bool DraftSampler::grows_trees() const {
  return setup_.siblings && setup_.length_rule != nullptr && banned_.empty() && branch_ == 1 &&
         mode_ != DraftMode::kSampled && !carries_distributions_ && !has_penalties() &&
         output_ != RowOutput::kArgmax;
}

std::vector<std::pair<TokenId, double>> DraftSampler::best_of(const RowResults& results, int row,
                                                              int depth, std::size_t n_committed,
                                                              int n, Chance& chance) const {
  std::vector<std::pair<TokenId, double>> best;
  if (mode_ != DraftMode::kCoupled && output_ == RowOutput::kTop) {
    const double log_sum_exp = static_cast<double>(results.log_sum_exp(row));
    for (const TopToken& top : results.top(row)) {
      if (static_cast<int>(best.size()) == n || top.token < 0 || top.token >= setup_.vocab_size)
        break;
      best.emplace_back(top.token, probability_of(top, log_sum_exp));
    }
    return best;
  }
  const Distribution distribution =
      distribution_of(results, row, {}, n_committed + static_cast<std::size_t>(depth));
  const std::vector<TokenId> tokens = mode_ == DraftMode::kCoupled
                                          ? draw_candidates_at(distribution, n, depth, chance)
                                          : best_candidates(distribution, n);
  for (const TokenId token : tokens) best.emplace_back(token, distribution.prob(token));
  return best;
}

void DraftSampler::note_best(const RowResults& results, int row) {
  probability_ = best_probability(results, row);
}

bool DraftSampler::add_second(const RowResults& results, int row, int depth,
                              DraftProposal& proposal) {
  const std::span<const TopToken> top = results.top(row);
  if (top.size() < 2 || top[1].token >= setup_.vocab_size) return false;
  const double probability = probability_of(top[1], static_cast<double>(results.log_sum_exp(row)));
  const double left = 1.0 - probability_;
  proposal.tokens.push_back(top[1].token);
  setup_.length_rule->note_sibling(depth + 1, left > 0 ? std::min(probability / left, 1.0) : 1.0);
  return true;
}

// What the model gives its best token at temperature 1.
double DraftSampler::best_probability(const RowResults& results, int row) const {
  if (output_ == RowOutput::kTop) {
    return probability_of(results.top(row)[0], static_cast<double>(results.log_sum_exp(row)));
  }
  return std::exp(token_logprobs(results.logits(row), results.argmax(row), 0).logprob);
}

Distribution DraftSampler::distribution_of(const RowResults& results, int row,
                                           std::span<const TokenId> path,
                                           std::uint64_t position) const {
  if (output_ == RowOutput::kTop) {
    std::span<const TopToken> top = results.top(row);
    while (!top.empty() && is_banned(top[0].token)) top = top.subspan(1);
    return warp_top(top.first(std::min(top.size(), static_cast<std::size_t>(top_k_))),
                    setup_.sampling, position);
  }
  const std::span<const float> logits = results.logits(row);
  const auto n = std::min(logits.size(), static_cast<std::size_t>(setup_.vocab_size));
  return warp(logits.first(n), setup_.sampling, path, position);
}

}  // namespace specdec
