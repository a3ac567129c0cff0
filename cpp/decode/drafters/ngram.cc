// Adaptive n-gram parallel decoding (Ou, Chen, Tian 2024, arXiv:2404.08698): counts of what
// followed every context of 1..N tokens so far; the longest known context decides.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "decode/drafter.h"

namespace specdec {
namespace {

// Of what is kept, at most 64 bytes each; then the older half is forgotten.
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

struct Follower {
  TokenId token = -1;
  std::uint32_t count = 0;
};

// By 64-bit hash, open addressing: a token of a small model takes 200 microseconds, in which
// lookups should not be felt.
class HashTable {
 public:
  [[nodiscard]] Follower find(std::uint64_t key) const {
    if (slots_.empty()) return {};
    const Slot& slot = slots_[place(key)];
    return slot.key == nonzero(key) ? slot.value : Follower();
  }
  // The value of a key, and whether it was not there yet. Valid until the next call.
  std::pair<Follower*, bool> insert(std::uint64_t key) {
    if (2 * (n_used_ + 1) > slots_.size()) grow();
    Slot& slot = slots_[place(key)];
    const bool is_new = slot.key == 0;
    if (is_new) {
      slot.key = nonzero(key);
      ++n_used_;
    }
    return {&slot.value, is_new};
  }

 private:
  struct Slot {
    std::uint64_t key = 0;  // 0: free
    Follower value;
  };
  static std::uint64_t nonzero(std::uint64_t key) { return key != 0 ? key : 1; }

  // Where the key is, or would be.
  [[nodiscard]] std::size_t place(std::uint64_t key) const {
    const std::size_t mask = slots_.size() - 1;
    auto i = static_cast<std::size_t>(nonzero(key)) & mask;
    while (slots_[i].key != 0 && slots_[i].key != nonzero(key)) i = (i + 1) & mask;
    return i;
  }

  void grow() {
    const std::vector<Slot> old = std::move(slots_);
    slots_.assign(std::max<std::size_t>(2 * old.size(), 64), {});
    for (const Slot& slot : old)
      if (slot.key != 0) slots_[place(slot.key)] = slot;
  }

  std::vector<Slot> slots_;
  std::size_t n_used_ = 0;
};

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
    std::vector<TokenId> context;
    context.reserve(keep + static_cast<std::size_t>(max_tokens));
    context.assign(committed.end() - static_cast<std::ptrdiff_t>(keep), committed.end());
    proposal.tokens.reserve(static_cast<std::size_t>(max_tokens));
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
  // Contexts of one length, by their 64-bit hash; a collision could only worsen a guess.
  struct Level {
    HashTable best;    // context -> most frequent follower, then most recent
    HashTable others;  // (context, follower) -> count, of those that were not always the best
  };

  // Calls visit(level, hash of the last level + 1 tokens) from the shortest context to the longest,
  // until it says false.
  template <typename Visit>
  void for_each_level(std::span<const TokenId> context, Visit&& visit) const {
    std::uint64_t hash = 0;
    const std::size_t n = std::min(context.size(), levels_.size());
    for (std::size_t i = 0; i < n; ++i) {
      hash = hash_with(hash, context[context.size() - 1 - i]);
      if (!visit(i, hash)) return;
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
      const Level* const older = older_ != nullptr ? &(*older_)[at] : nullptr;
      const auto [best, is_first] = level.best.insert(hash);
      if (is_first) {
        ++n_counts_;
        if (older != nullptr) *best = older->best.find(hash);  // it goes on from there
      }
      if (best->count == 0 || best->token == follower) {
        *best = {follower, best->count + 1};
        return true;
      }
      const auto [counted, is_new] = level.others.insert(key_of(hash, follower));
      if (is_new) {
        ++n_counts_;
        if (older != nullptr) *counted = counted_in(*older, hash, follower);
      }
      *counted = {follower, counted->count + 1};
      if (counted->count < best->count) return true;
      const Follower fallen = std::exchange(*best, *counted);
      const auto [place, is_other] = level.others.insert(key_of(hash, fallen.token));
      if (is_other) ++n_counts_;
      *place = fallen;
      return true;
    });
  }

  static std::uint64_t key_of(std::uint64_t context, TokenId follower) {
    return hash_with(~context, follower);
  }

  static Follower counted_in(const Level& level, std::uint64_t context, TokenId follower) {
    const Follower best = level.best.find(context);
    return best.token == follower ? best : level.others.find(key_of(context, follower));
  }

  // The best follower of the longest known context, and how long that is.
  TokenId query(std::span<const TokenId> context, int& length) const {
    TokenId found = -1;
    int n = 0;
    for_each_level(context, [&](std::size_t at, std::uint64_t hash) {
      ++n;
      Follower best = levels_[at].best.find(hash);
      if (best.count == 0 && older_ != nullptr) best = (*older_)[at].best.find(hash);
      if (best.count == 0) return false;  // so no longer one was seen either
      const bool usable =
          best.count >= static_cast<std::uint32_t>(options_.min_count) && best.token < vocab_size_;
      if (!usable) return true;
      found = best.token;  // a longer context overrules
      length = n;
      return true;
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
