// What a request has generated, on its way to the caller: where it ends, what can be shown, what is
// counted.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/token.h"
#include "decode/request.h"
#include "decode/stats.h"
#include "decode/stop.h"
#include "sampling/proposal.h"

namespace specdec {

class TaskOutput {
 public:
  // Throws Error(kInvalidArgument) for stop strings that are none.
  explicit TaskOutput(const DecodeRequest& request);

  // A pass that verified this proposal; empty: a plain step.
  void begin_pass(const DraftProposal& proposal);
  // The next token of the pass; draft_depth as TokenLedger::add(). False when it comes behind the
  // end and is none of the text.
  [[nodiscard]] bool push(TokenId token, int draft_depth);
  void push_logprobs(TokenLogprobs logprobs) { logprobs_.push_back(std::move(logprobs)); }
  // Nothing comes after a stop.
  [[nodiscard]] bool ended() const { return ended_; }

  // Hands out tokens that no stop string can reach any more. False when the caller had enough.
  // generated: all tokens that were pushed.
  [[nodiscard]] bool release(std::span<const TokenId> generated, bool all);
  // What was not handed out is dropped.
  void drop_unreleased() { stop_.drop_after(n_released_); }

  // Fills tokens, text and counts. Once, at the end.
  void put(std::span<const TokenId> generated, DecodeResult& result);
  // What ended it, when ended().
  void put_stop(DecodeResult& result) const;
  // Tokens that are in the result.
  [[nodiscard]] std::size_t n_kept() const;

 private:
  const DecodeRequest& request_;
  StopState stop_;
  TokenLedger ledger_;
  std::vector<TokenLogprobs> logprobs_;   // [n generated], when asked for
  std::vector<std::uint8_t> from_draft_;  // [n generated]
  std::size_t n_released_ = 0;
  bool ended_ = false;  // by end-of-sequence or a stop string
};

}  // namespace specdec
