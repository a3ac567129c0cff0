// The decoding loop of one request alone: a drafter proposes, one target pass scores, a verifier
// decides. Plain decoding is the same loop with empty drafts.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "decode/control/controller.h"
#include "decode/drafter.h"
#include "decode/request.h"
#include "decode/task.h"
#include "decode/token_cache.h"
#include "decode/token_scorer.h"

namespace specdec {

// One turn of a task whose rows are scored by a scorer of its own: scores them, and gives and keeps
// what comes of them.
void take_turn(TokenCache& cache, const TaskRows& rows, Task& task);

// Owns the bookkeeping of one target cache (and, through the drafter, of the draft's). Between
// calls it remembers what the caches hold: a prompt that begins like the last conversation is only
// read from where it differs.
//
// After run(), however it ends (cancel and exceptions from models or callbacks included), the
// target's cache holds exactly the committed tokens (prompt and result) but the last, and the
// draft's a prefix of that. When the prompt itself was not read to its end, both hold a prefix of
// it.
//
// Not thread-safe.
class Decoder {
 public:
  // drafter may be null. Both must outlive the decoder; nobody else may feed the scorer meanwhile.
  // `cached`: what the target's cache holds already, for a fork.
  explicit Decoder(TokenScorer& target, Drafter* drafter = nullptr,
                   std::span<const TokenId> cached = {})
      : cache_(target, cached) {
    set_drafter(drafter);
  }

  // Several drafters under a controller that chooses among them, in this order.
  Decoder(TokenScorer& target, std::vector<Drafter*> drafters, Controller* controller,
          std::span<const TokenId> cached = {})
      : cache_(target, cached), drafters_(std::move(drafters)), controller_(controller) {}

  // Throws Error: kInvalidArgument for bad options; kContextFull when the prompt leaves no room for
  // one token; kNumerical when the target's logits are not finite; what the target throws. An error
  // of the draft model only ends speculation, see stats.speculation.
  [[nodiscard]] DecodeResult run(const DecodeRequest& request);

  // Forgets both caches.
  void reset();

  [[nodiscard]] std::span<const TokenId> cached_tokens() const { return cache_.tokens(); }
  // Of the target; not during run().
  [[nodiscard]] TokenCache& cache() { return cache_; }
  // The caller wants another drafter (or none) from the next run() on.
  void set_drafter(Drafter* drafter) {
    controller_ = nullptr;
    drafters_.clear();
    if (drafter != nullptr) drafters_.push_back(drafter);
  }

 private:
  TokenCache cache_;
  std::vector<Drafter*> drafters_;
  Controller* controller_ = nullptr;
};

}  // namespace specdec
