// Token recycling (Luo et al. 2024, arXiv:2408.08696): the target's best tokens after each token,
// as they were when it last came up, linked into a chain or a tree. They come from logits that were
// computed anyway.
#include <algorithm>
#include <optional>
#include <queue>
#include <string>

#include "base/error.h"
#include "decode/draft_memory.h"
#include "decode/drafter.h"

namespace specdec {
namespace {

constexpr double kLearningRate = 1.0 / 64;
// Tokens that are less likely to be reached are not worth a row.
constexpr double kMinReach = 0.05;

class TokenRecycling final : public Drafter {
 public:
  explicit TokenRecycling(const RecyclingOptions& options) : options_(options) {
    const auto check = [](const char* name, int value, int low, int high) {
      if (value < low || value > high) {
        throw_invalid("recycling " + std::string(name) + " must be in [" + std::to_string(low) +
                      ", " + std::to_string(high) + "], got " + std::to_string(value));
      }
    };
    check("top_k", options.top_k, 1, 32);
    reset();
  }

  std::string_view name() const override { return "recycling"; }
  DraftLengths lengths() const override { return options_.lengths; }
  int default_draft_max() const override { return 15; }
  int wanted_top_k() const override { return options_.top_k; }
  bool wants_all_rows() const override { return true; }

  void begin(const DraftSetup& setup, std::span<const TokenId> prompt) override {
    eog_ = setup.eog;
    memory_key_ = options_.memory != nullptr ? setup.memory_key : std::nullopt;
    tree_ = options_.tree && setup.verifier.trees;
    const std::size_t size =
        static_cast<std::size_t>(setup.vocab_size) * static_cast<std::size_t>(options_.top_k);
    if (!options_.keep) reset();
    if (successors_.size() != size) successors_.assign(size, -1);
    // Until there are logits, what followed in the prompt.
    for (std::size_t i = 1; i < prompt.size(); ++i) put_first(prompt[i - 1], prompt[i]);
  }

  DraftProposal propose(std::span<const TokenId> committed, int max_tokens, Chance&) override {
    DraftProposal proposal;
    if (successors_.empty()) return proposal;
    const double least = options_.lengths.gamma ? 0.0 : kMinReach;
    // The likeliest token to be reached next, its sibling and its child are candidates then.
    std::priority_queue<Candidate> queue;
    const auto offer = [&](std::int32_t parent, TokenId after, int rank, double parent_reach) {
      if (rank >= (tree_ ? options_.top_k : 1)) return;
      const TokenId token = known_row_of(after)[static_cast<std::size_t>(rank)];
      const double reach = parent_reach * hit_rate(rank);
      if (token >= 0 && reach >= least)
        queue.push({reach, parent_reach, parent, rank, after, token});
    };
    offer(-1, committed.back(), 0, 1.0);
    while (!queue.empty() && proposal.size() < max_tokens) {
      const Candidate best = queue.top();
      queue.pop();
      const auto node = static_cast<std::int32_t>(proposal.size());
      proposal.tokens.push_back(best.token);
      proposal.parents.push_back(best.parent);
      offer(best.parent, best.after, best.rank + 1, best.parent_reach);
      if (std::find(eog_.begin(), eog_.end(), best.token) == eog_.end())
        offer(node, best.token, 0, best.reach);
    }
    if (proposal.is_chain()) proposal.parents.clear();
    return proposal;
  }

  void commit(const CommitInfo& info) override {
    const std::size_t first = info.committed.size() - static_cast<std::size_t>(info.n_new);
    for (std::size_t i = first; i < info.committed.size(); ++i) {
      if (i > 0) score(info.committed[i - 1], info.committed[i]);
    }
    learnt_.clear();
    for (std::size_t r = 0; r < info.row_top_k.size(); ++r)
      replace(info.row_tokens[r], info.row_top_k[r]);
    // Last: on the way that was taken they know the true context.
    for (std::size_t i = 0; i < info.target_top_k.size(); ++i) {
      if (first + i > 0) replace(info.committed[first + i - 1], info.target_top_k[i]);
    }
    if (memory_key_) options_.memory->add_successors(*memory_key_, learnt_);
  }

  void reset() override {
    successors_.clear();
    hit_rates_.clear();
    for (int r = 0; r < options_.top_k; ++r) hit_rates_.push_back(r == 0 ? 0.45 : 0.3 / (2 * r));
  }
  bool keeps() const override { return options_.keep; }
  std::unique_ptr<Drafter> fork() const override {
    return options_.keep ? std::make_unique<TokenRecycling>(*this) : nullptr;
  }

 private:
  struct Candidate {
    double reach;  // estimated probability that the text gets here
    double parent_reach;
    std::int32_t parent;
    int rank;  // among the successors of `after`
    TokenId after;
    TokenId token;
    bool operator<(const Candidate& other) const { return reach < other.reach; }
  };

  [[nodiscard]] std::span<TokenId> row_of(TokenId token) {
    const auto k = static_cast<std::size_t>(options_.top_k);
    return std::span(successors_).subspan(static_cast<std::size_t>(token) * k, k);
  }

  // What this request has seen, or else what earlier ones saw.
  [[nodiscard]] std::span<TokenId> known_row_of(TokenId token) {
    const std::span<TokenId> row = row_of(token);
    if (row[0] >= 0 || !memory_key_) return row;
    if (options_.memory->find_successors(*memory_key_, token, row)) {
      // Of a model with more tokens, perhaps.
      const auto n = static_cast<TokenId>(successors_.size() / row.size());
      for (TokenId& t : row)
        if (t >= n) t = -1;
    }
    return row;
  }

  // Never above that of a better rank, so that siblings are offered in order.
  [[nodiscard]] double hit_rate(int rank) const {
    double rate = 1.0;
    for (int r = 0; r <= rank; ++r) rate = std::min(rate, hit_rates_[static_cast<std::size_t>(r)]);
    return rate;
  }

  // How often each rank is right.
  void score(TokenId after, TokenId came) {
    const std::span<const TokenId> row = row_of(after);
    if (row[0] < 0) return;
    for (std::size_t r = 0; r < row.size(); ++r)
      hit_rates_[r] += kLearningRate * ((row[r] == came ? 1.0 : 0.0) - hit_rates_[r]);
  }

  void put_first(TokenId after, TokenId token) {
    const std::span<TokenId> row = row_of(after);
    auto at = std::find(row.begin(), row.end(), token);
    if (at == row.end()) at = row.end() - 1;
    std::move_backward(row.begin(), at, at + 1);
    row[0] = token;
  }

  void replace(TokenId after, const std::vector<TokenId>& best) {
    const std::span<TokenId> row = row_of(after);
    const std::size_t n = std::min(row.size(), best.size());
    std::copy_n(best.begin(), n, row.begin());
    std::fill(row.begin() + static_cast<std::ptrdiff_t>(n), row.end(), -1);
    if (!memory_key_) return;
    DraftMemory::Successors learnt{.after = after, .best = {}};
    learnt.best.fill(-1);
    std::copy_n(row.begin(), std::min(row.size(), learnt.best.size()), learnt.best.begin());
    learnt_.push_back(learnt);
  }

  RecyclingOptions options_;
  std::vector<TokenId> eog_;
  bool tree_ = false;
  std::vector<TokenId> successors_;  // [vocab_size, top_k] best first, -1 behind the last
  std::vector<double> hit_rates_;    // [top_k]
  std::optional<std::uint64_t> memory_key_;
  std::vector<DraftMemory::Successors> learnt_;  // in this pass, for the memory
};

}  // namespace

std::unique_ptr<Drafter> make_token_recycling(const RecyclingOptions& options,
                                              const DrafterModels&) {
  return std::make_unique<TokenRecycling>(options);
}

}  // namespace specdec
