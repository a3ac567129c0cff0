// A scorer together with the tokens that its cache holds: the one list of them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/token.h"
#include "decode/token_scorer.h"

namespace specdec {

// Keeps the list of tokens in step with the scorer's length, also when a forward throws. Rows of a
// round that was not kept are unreachable after align().
class TokenCache {
 public:
  // tokens: what the cache holds already, [scorer.length()]; for a fork.
  explicit TokenCache(TokenScorer& scorer, std::span<const TokenId> tokens = {})
      : scorer_(scorer), tokens_(tokens.begin(), tokens.end()) {
    scorer_.set_tokens(&tokens_);
  }
  ~TokenCache() { scorer_.set_tokens(nullptr); }
  TokenCache(const TokenCache&) = delete;
  TokenCache& operator=(const TokenCache&) = delete;

  [[nodiscard]] TokenScorer& scorer() { return scorer_; }
  [[nodiscard]] const TokenScorer& scorer() const { return scorer_; }
  [[nodiscard]] std::span<const TokenId> tokens() const { return tokens_; }
  [[nodiscard]] int length() const { return static_cast<int>(tokens_.size()); }

  // Drops everything after the common prefix with `tokens`, and beyond max_length.
  void align(std::span<const TokenId> tokens, int max_length);
  // And whatever the scorer would have to feed again.
  void align_to_reachable(std::span<const TokenId> tokens, int max_length);
  // Feeds a chain that stays: no outputs but of the last row. top_k and head_blocks as in Batch.
  void append(std::span<const TokenId> tokens, RowOutput last_row_output, int top_k = 1,
              std::span<const std::int32_t> head_blocks = {});
  // Feeds a chain and up to n_steps - 1 tokens that follow, as TokenScorer::forward_steps();
  // returns the steps.
  int append_steps(std::span<const TokenId> tokens, int n_steps, RowOutput output, int top_k,
                   std::span<const std::int32_t> head_blocks);
  // What append_steps() would ask for, for somebody who does it himself; he says here what came of
  // it.
  [[nodiscard]] Steps steps_behind(std::span<const TokenId> tokens, int n_steps, RowOutput output,
                                   int top_k, std::span<const std::int32_t> head_blocks);
  void note(const Steps& steps);
  // Drops all but the first n tokens.
  void truncate(int n) { align(tokens(), n); }
  // Feeds tokens without outputs, in pieces of at most kPieceRows, polling `cancel` (may be null)
  // between them; throws Error(kCancelled). `on_piece` (may be empty) gets the new length.
  void read(std::span<const TokenId> tokens, const std::atomic<bool>* cancel,
            const std::function<void(int)>& on_piece = {});
  // After the scorer was given `tokens` as a batch behind this cache: keeps the rows of `path`
  // (each the child of the one before), drops the others.
  void keep(std::span<const TokenId> batch_tokens, std::span<const std::int32_t> path);
  void clear() { align({}, 0); }
  // The scorer's content was replaced by somebody, who lists its tokens [scorer.length()].
  void adopt(std::vector<TokenId> tokens);

  static constexpr int kPieceRows = 512;

 private:
  [[nodiscard]] int common_length(std::span<const TokenId> tokens, int max_length) const;

  TokenScorer& scorer_;
  std::vector<TokenId> tokens_;
};

void throw_if_cancelled(const std::atomic<bool>* cancel);

}  // namespace specdec
