// Texts of earlier requests, in which drafters look up what comes next; of any threads.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <shared_mutex>
#include <span>
#include <vector>

#include "base/token.h"

namespace specdec {

// Bounded: the texts that were of use least recently are forgotten. Texts have a key, and are found
// under that key only. What a text begins with and others hold already is not stored again.
//
// Hashes of the last 3, 5, 8, 16 and 32 tokens lead to the most recent place that they occurred at,
// where the tokens themselves are compared. Looking up takes about a microsecond, adding less than
// one per token; places of forgotten texts are found stale, and overwritten.
class DraftMemory {
 public:
  static constexpr int kLeastTokens = 1024;
  static constexpr int kMostTokens = 1 << 24;
  static constexpr int kDefaultTokens = 1 << 18;
  static constexpr int kLeastMatch = 3;
  static constexpr int kMostMatch = 64;  // longer ones count as that
  static constexpr int kRowTokens = 8;   // successors kept per token

  // About 90 bytes per token, taken with the first text. Throws Error(kInvalidArgument).
  // first_position: for tests.
  explicit DraftMemory(int max_tokens = kDefaultTokens, std::uint32_t first_position = 1);

  // A text is over: prompt and output. Of one that is longer than the memory the last tokens.
  void add(std::uint64_t key, std::span<const TokenId> text);
  // What somebody else used earlier has one of the times that leave_free() left: it is older than
  // all that was used here since, and forgets none of that.
  static constexpr std::uint64_t kFreeTimes = std::uint64_t{1} << 32;
  std::uint64_t leave_free() { return clock_.fetch_add(kFreeTimes) + 1; }  // the first of them
  void add_at(std::uint64_t time, std::uint64_t key, std::span<const TokenId> text);
  // What of a text add() would have to store: nothing where it is here already. All of one that is
  // longer than the memory.
  [[nodiscard]] std::span<const TokenId> missing(std::uint64_t key,
                                                 std::span<const TokenId> text) const;
  // Appends to `out` up to max_tokens tokens that followed the longest known end of `text`; returns
  // how long that is, or 0.
  int look_up(std::uint64_t key, std::span<const TokenId> text, int max_tokens,
              std::vector<TokenId>& out) const;

  // The target's best tokens after a token, as they were when it last came up.
  struct Successors {
    TokenId after = 0;
    std::array<TokenId, kRowTokens> best{};  // -1 behind the last
  };
  void add_successors(std::uint64_t key, std::span<const Successors> rows);
  void add_successors_at(std::uint64_t time, std::uint64_t key, std::span<const Successors> rows);
  // False: none are known, and `row` is as it was.
  bool find_successors(std::uint64_t key, TokenId after, std::span<TokenId> row) const;

  void clear();

  struct Stats {
    int max_tokens = 0;
    int max_rows = 0;
    int n_tokens = 0;
    int n_texts = 0;
    int n_rows = 0;
    std::size_t n_bytes = 0;
    std::uint64_t n_changes = 0;  // so far
  };
  [[nodiscard]] Stats stats() const;

  // What is to be kept elsewhere: texts, used least recently first, and successors. Others wait.
  void visit(const std::function<void(std::uint64_t key, std::span<const TokenId> text)>& on_text,
             const std::function<void(std::uint64_t key, const Successors& row)>& on_row) const;

 private:
  static constexpr std::array<int, 5> kLevels = {3, 5, 8, 16, 32};
  static constexpr int kBucketSlots = 4;

  struct Text {
    std::uint64_t key = 0;
    std::vector<TokenId> tokens;
    mutable std::atomic<std::uint64_t> used{0};
  };
  struct Slot {
    std::uint32_t tag = 0;
    std::uint32_t position = 0;  // of the token that follows; 0: empty
  };
  using Bucket = std::array<Slot, kBucketSlots>;
  struct Place {
    const Text* text = nullptr;
    std::size_t at = 0;  // of the token that follows
    int length = 0;      // of the match
  };
  struct Row {
    std::uint64_t key = 0;
    bool is_there = false;
    std::uint64_t used = 0;
    Successors successors;
  };

  // All with the lock held.
  void index(std::uint32_t base, const Text& text);
  void index_again();
  void add_locked(std::uint64_t time, std::uint64_t key, std::span<const TokenId> text);
  [[nodiscard]] bool make_room(std::uint64_t time, std::size_t n_tokens);
  void store(std::uint64_t time, std::uint64_t key, std::span<const TokenId> text);
  [[nodiscard]] std::size_t n_known(std::uint64_t time, std::uint64_t key,
                                    std::span<const TokenId> text) const;
  [[nodiscard]] bool holds(std::uint64_t time, std::uint64_t key,
                           std::span<const TokenId> text) const;
  [[nodiscard]] Place find(std::uint64_t key, std::span<const TokenId> text,
                           std::size_t from_level = 0) const;
  [[nodiscard]] Place place_of(const Slot& slot) const;
  [[nodiscard]] std::size_t bucket_of(std::uint64_t hash) const;
  [[nodiscard]] std::span<const TokenId> new_in(std::uint64_t time, std::uint64_t key,
                                                std::span<const TokenId> text) const;
  [[nodiscard]] int max_rows() const;
  [[nodiscard]] std::size_t row_of(std::uint64_t key, TokenId after) const;
  [[nodiscard]] std::uint64_t now() const { return clock_.fetch_add(1) + 1; }
  static void touch(const Text& text, std::uint64_t time);

  const int max_tokens_;
  const std::uint32_t first_position_;
  mutable std::shared_mutex mutex_;
  mutable std::atomic<std::uint64_t> clock_{0};
  std::map<std::uint32_t, std::unique_ptr<Text>> texts_;  // by the position of the first token
  std::uint32_t next_position_;
  int n_tokens_ = 0;
  std::array<std::vector<Bucket>, kLevels.size()> levels_;
  std::vector<Row> rows_;
  int n_rows_ = 0;
  std::uint64_t n_changes_ = 0;
};

}  // namespace specdec
