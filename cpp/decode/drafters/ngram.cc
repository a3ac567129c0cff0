// Adaptive n-gram parallel decoding (Ou, Chen, Tian 2024, arXiv:2404.08698): counts of what
// followed every context of 1..N tokens so far; the longest known context decides.
#include <algorithm>
#include <string>
#include <unordered_map>

#include "base/error.h"
#include "decode/drafter.h"

namespace specdec {
namespace {

std::uint64_t mix(std::uint64_t x) {
  x ^= x >> 32;
  x *= 0xE9846AF9B1A615DULL;
  x ^= x >> 32;
  x *= 0xE9846AF9B1A615DULL;
  return x ^ (x >> 28);
}

std::uint64_t hash_with(std::uint64_t hash, TokenId token) {
  return mix(hash + 0x9E3779B97F4A7C15ULL + static_cast<std::uint32_t>(token));
}

class NGram final : public Drafter {
 public:
  explicit NGram(const NGramOptions& options) : options_(options) {
    const auto check = [](const char* name, int value, int low, int high) {
      if (value < low || value > high) {
        throw_invalid(std::string(name) + " must be in [" + std::to_string(low) + ", " +
                      std::to_string(high) + "], got " + std::to_string(value));
      }
    };
    check("ngram n", options.n, 1, 16);
    check("ngram filler_top_k", options.filler_top_k, 1, 64);
    check("ngram min_count", options.min_count, 1, 1 << 30);
    reset();
  }

  std::string_view name() const override { return "ngram"; }
  DraftLengths lengths() const override { return options_.lengths; }
  int default_draft_max() const override { return 7; }
  int wanted_top_k() const override {
    return options_.filler_top_k > 1 ? options_.filler_top_k : 0;
  }

  void begin(const DraftSetup& setup, std::span<const TokenId> prompt) override {
    if (!options_.keep) reset();
    eog_ = setup.eog;
    vocab_size_ = setup.vocab_size;
    for (std::size_t i = 1; i < prompt.size(); ++i) count(prompt.first(i), prompt[i]);
  }

  DraftProposal propose(std::span<const TokenId> committed, int max_tokens, Chance&) override {
    DraftProposal proposal;
    // Only the last n tokens matter.
    const std::size_t keep = std::min(committed.size(), levels_.size());
    std::vector<TokenId> context(committed.end() - static_cast<std::ptrdiff_t>(keep),
                                 committed.end());
    while (proposal.size() < max_tokens) {
      int level = 0;
      const TokenId next = query(context, level);
      if (next < 0) break;
      if (proposal.empty()) proposal.strength = level;
      proposal.tokens.push_back(next);
      if (std::find(eog_.begin(), eog_.end(), next) != eog_.end()) break;
      context.push_back(next);
    }
    return proposal;
  }

  void commit(const CommitInfo& info) override {
    const std::size_t first = info.committed.size() - static_cast<std::size_t>(info.n_new);
    for (std::size_t i = 0; i < static_cast<std::size_t>(info.n_new); ++i) {
      const std::span<const TokenId> context = info.committed.first(first + i);
      if (options_.filler_top_k > 1 && !info.target_top_k.empty()) {
        const std::vector<TokenId>& top = info.target_top_k[i];
        // Others may have asked for more. Worst first, so that ties go to the better one.
        auto n = std::min(top.size(), static_cast<std::size_t>(options_.filler_top_k));
        while (n-- > 0) count(context, top[n]);
      }
      count(context, info.committed[first + i]);  // last: the most recent wins ties
    }
  }

  void reset() override { levels_.assign(static_cast<std::size_t>(options_.n), {}); }
  bool keeps() const override { return options_.keep; }
  std::unique_ptr<Drafter> fork() const override {
    return options_.keep ? std::make_unique<NGram>(*this) : nullptr;
  }

 private:
  struct Follower {
    TokenId token = -1;
    std::uint32_t count = 0;
  };
  // Contexts of one length, by their 64-bit hash; a collision could only worsen a guess.
  struct Level {
    std::unordered_map<std::uint64_t, std::uint32_t> counts;  // (context, follower) -> count
    std::unordered_map<std::uint64_t, Follower> best;  // context -> most frequent, then most recent
  };

  // Calls visit(level, hash of the last level + 1 tokens) from the shortest context to the longest.
  template <typename Visit>
  void for_each_level(std::span<const TokenId> context, Visit&& visit) {
    std::uint64_t hash = 0;
    const std::size_t n = std::min(context.size(), levels_.size());
    for (std::size_t i = 0; i < n; ++i) {
      hash = hash_with(hash, context[context.size() - 1 - i]);
      visit(levels_[i], hash);
    }
  }

  void count(std::span<const TokenId> context, TokenId follower) {
    for_each_level(context, [&](Level& level, std::uint64_t hash) {
      const std::uint32_t n = ++level.counts[hash_with(~hash, follower)];
      Follower& best = level.best[hash];
      if (n >= best.count) best = {follower, n};
    });
  }

  // The best follower of the longest known context, and how long that is.
  TokenId query(std::span<const TokenId> context, int& length) {
    TokenId found = -1;
    int n = 0;
    for_each_level(context, [&](const Level& level, std::uint64_t hash) {
      ++n;
      const auto best = level.best.find(hash);
      if (best == level.best.end()) return;
      const bool usable = best->second.count >= static_cast<std::uint32_t>(options_.min_count) &&
                          best->second.token < vocab_size_;
      if (!usable) return;
      found = best->second.token;  // a longer context overrules
      length = n;
    });
    return found;
  }

  NGramOptions options_;
  std::vector<TokenId> eog_;
  int vocab_size_ = 0;
  std::vector<Level> levels_;  // [n], level i: contexts of i + 1 tokens
};

}  // namespace

std::unique_ptr<Drafter> make_ngram(const NGramOptions& options, const DrafterModels&) {
  return std::make_unique<NGram>(options);
}

}  // namespace specdec
