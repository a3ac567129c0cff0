// A smaller model with its own cache proposes a chain.
#include <algorithm>
#include <string>

#include "base/error.h"
#include "decode/drafter.h"
#include "decode/token_cache.h"
#include "sampling/warp.h"

namespace specdec {
namespace {

class DraftModel final : public Drafter {
 public:
  explicit DraftModel(const DrafterSource& source)
      : cache_(*source.draft_scorer, source.draft_cached), options_(source.model) {
    SamplingParams probe;  // its validation names the options
    if (options_.temperature) probe.temperature = *options_.temperature;
    if (options_.top_k) probe.top_k = *options_.top_k;
    probe.validate();
  }

  std::string_view name() const override { return "model"; }
  int default_draft_max() const override { return 4; }

  void begin(const DraftSetup& setup, std::span<const TokenId>) override {
    setup_ = setup;
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
    if (mode_ == DraftMode::kGreedy) params.temperature = 0.0;
    output_ = params.argmax_suffices() && cache_.scorer().vocab_size() <= setup_.vocab_size
                  ? RowOutput::kArgmax
                  : RowOutput::kLogits;
  }

  DraftProposal propose(std::span<const TokenId> committed, int max_tokens,
                        Chance& chance) override {
    TokenScorer& scorer = cache_.scorer();
    // The last drafted token is never fed, so committed + n - 1 rows are needed.
    const int room = scorer.n_ctx() - static_cast<int>(committed.size()) + 1;
    const int n = std::min(max_tokens, room);
    DraftProposal proposal;
    if (n < 1) return proposal;
    catch_up(committed);

    std::vector<TokenId> path;  // committed + drafted, only when penalties look at it
    if (setup_.sampling.has_penalties()) path.assign(committed.begin(), committed.end());
    int row = last_row_;
    while (true) {
      const TokenId token = choose(row, path, committed.size(), proposal, chance);
      proposal.tokens.push_back(token);
      const bool ends = std::find(setup_.eog.begin(), setup_.eog.end(), token) != setup_.eog.end();
      if (ends || proposal.size() >= n) return proposal;
      if (setup_.sampling.has_penalties()) path.push_back(token);
      throw_if_cancelled(setup_.cancel);
      cache_.append({&token, 1}, output_);
      row = 0;
    }
  }

  void align(std::span<const TokenId> committed) override {
    cache_.align(committed, static_cast<int>(committed.size()) - 1);
  }

  void reset() override { cache_.clear(); }

 private:
  // Feeds every committed token the cache lacks; the last one gives the first drafted token.
  void catch_up(std::span<const TokenId> committed) {
    const auto vocab_size = static_cast<TokenId>(cache_.scorer().vocab_size());
    align(committed);
    std::span<const TokenId> lacking = committed.subspan(static_cast<std::size_t>(cache_.length()));
    for (const TokenId token : lacking) {
      if (token >= vocab_size) {
        throw Error(ErrorCode::kUnsupported, "the draft model has no token " +
                                                 std::to_string(token) + ", its vocabulary has " +
                                                 std::to_string(vocab_size));
      }
    }
    constexpr std::size_t kPiece = TokenCache::kPieceRows;
    if (lacking.size() > kPiece) {
      const std::size_t head = (lacking.size() - 1) / kPiece * kPiece;
      cache_.read(lacking.first(head), setup_.cancel);
      lacking = lacking.subspan(head);
    }
    throw_if_cancelled(setup_.cancel);
    cache_.append(lacking, output_);
    last_row_ = static_cast<int>(lacking.size()) - 1;
  }

  TokenId choose(int row, std::span<const TokenId> path, std::size_t n_committed,
                 DraftProposal& proposal, Chance& chance) {
    const TokenScorer& scorer = cache_.scorer();
    if (output_ == RowOutput::kArgmax) {
      const TokenId best = scorer.argmax(row);
      if (best < 0) throw Error(ErrorCode::kNumerical, "the draft model's logits are not finite");
      return best;
    }
    std::span<const float> logits = scorer.logits(row);
    const auto n = std::min(logits.size(), static_cast<std::size_t>(setup_.vocab_size));
    const int depth = proposal.size();
    Distribution law =
        warp(logits.first(n), setup_.sampling, path, n_committed + static_cast<std::size_t>(depth));
    switch (mode_) {
      case DraftMode::kSampled: {
        const TokenId token = chance.draw(law);
        proposal.probs.push_back(std::move(law));
        return token;
      }
      case DraftMode::kCoupled:
        return chance.draw_at(law, depth);
      default:
        return law.best_token();
    }
  }

  TokenCache cache_;
  DraftModelOptions options_;
  DraftSetup setup_;
  DraftMode mode_ = DraftMode::kGreedy;
  RowOutput output_ = RowOutput::kLogits;
  int last_row_ = 0;
};

}  // namespace

std::unique_ptr<Drafter> make_draft_model(const DrafterSource& source) {
  return std::make_unique<DraftModel>(source);
}

}  // namespace specdec
