// Adaptive n-gram parallel decoding (Ou, Chen, Tian 2024, arXiv:2404.08698): counts of what
// followed every context of 1..N tokens so far; the longest known context decides.
#include <algorithm>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "decode/drafter.h"

namespace specdec {
namespace {

// Of what is kept, about 100 bytes each; then the older half is forgotten.
constexpr std::size_t kMostCounts = 1 << 17;

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
    // What a text that goes on has had counted is the same again, but for what was never in it.
    const bool knows = options_.keep || options_.filler_top_k == 1;
    const bool goes_on = knows && !text_.empty() && text_.size() <= prompt.size() &&
                         std::equal(text_.begin(), text_.end(), prompt.begin());
    if (!goes_on && !options_.keep) reset();
    eog_ = setup.eog;
    vocab_size_ = setup.vocab_size;
    for (std::size_t i = goes_on ? text_.size() : 1; i < prompt.size(); ++i)
      count(prompt.first(i), prompt[i]);
    text_.assign(prompt.begin(), prompt.end());
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
    if (text_.size() == first) {
      text_.insert(text_.end(), info.committed.end() - info.n_new, info.committed.end());
    } else {
      text_.clear();
    }
  }

  void reset() override {
    levels_.assign(static_cast<std::size_t>(options_.n), {});
    older_.reset();
    n_counts_ = 0;
    text_.clear();
  }
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
  void for_each_level(std::span<const TokenId> context, Visit&& visit) const {
    std::uint64_t hash = 0;
    const std::size_t n = std::min(context.size(), levels_.size());
    for (std::size_t i = 0; i < n; ++i) {
      hash = hash_with(hash, context[context.size() - 1 - i]);
      visit(i, hash);
    }
  }

  void count(std::span<const TokenId> context, TokenId follower) {
    if (options_.keep && n_counts_ >= kMostCounts) {
      older_ = std::make_shared<const std::vector<Level>>(std::move(levels_));
      levels_.assign(static_cast<std::size_t>(options_.n), {});
      n_counts_ = 0;
    }
    for_each_level(context, [&](std::size_t at, std::uint64_t hash) {
      Level& level = levels_[at];
      const std::uint64_t key = hash_with(~hash, follower);
      const auto [counted, is_new] = level.counts.try_emplace(key, 0);
      const auto [best, is_first] = level.best.try_emplace(hash);
      if (is_new) ++n_counts_;
      if (older_ != nullptr) {  // what is seen again goes on from there
        const Level& older = (*older_)[at];
        if (is_new) counted->second = find_or(older.counts, key, 0U);
        if (is_first) best->second = find_or(older.best, hash, Follower());
      }
      const std::uint32_t n = ++counted->second;
      if (n >= best->second.count) best->second = {follower, n};
    });
  }

  template <typename Value>
  static Value find_or(const std::unordered_map<std::uint64_t, Value>& map, std::uint64_t key,
                       Value other) {
    const auto found = map.find(key);
    return found != map.end() ? found->second : other;
  }

  // The best follower of the longest known context, and how long that is.
  TokenId query(std::span<const TokenId> context, int& length) const {
    TokenId found = -1;
    int n = 0;
    for_each_level(context, [&](std::size_t at, std::uint64_t hash) {
      ++n;
      Follower best = find_or(levels_[at].best, hash, Follower());
      if (best.count == 0 && older_ != nullptr) best = find_or((*older_)[at].best, hash, best);
      const bool usable = best.count > 0 &&
                          best.count >= static_cast<std::uint32_t>(options_.min_count) &&
                          best.token < vocab_size_;
      if (!usable) return;
      found = best.token;  // a longer context overrules
      length = n;
    });
    return found;
  }

  NGramOptions options_;
  std::vector<TokenId> eog_;
  int vocab_size_ = 0;
  std::vector<Level> levels_;                        // [n], level i: contexts of i + 1 tokens
  std::size_t n_counts_ = 0;                         // of all levels
  std::shared_ptr<const std::vector<Level>> older_;  // likewise, of longer ago; forks share it
  std::vector<TokenId> text_;                        // that was counted last; empty: unknown
};

}  // namespace

std::unique_ptr<Drafter> make_ngram(const NGramOptions& options, const DrafterModels&) {
  return std::make_unique<NGram>(options);
}

}  // namespace specdec
