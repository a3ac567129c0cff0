// What the decoding loop is asked for, and what it answers.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/token.h"
#include "decode/round_info.h"
#include "decode/stats.h"
#include "decode/stop.h"
#include "sampling/chance.h"
#include "sampling/constraint.h"
#include "sampling/logprobs.h"
#include "sampling/params.h"

namespace specdec {

class RoundTrace;

// Tokens that became final, in order. Concatenated chunks are exactly the result.
struct Chunk {
  std::span<const TokenId> token_ids;
  std::span<const std::uint8_t> from_draft;  // [token_ids.size()]: 1 when a drafter had proposed it
  std::string_view text;                     // bytes; empty without TokenPieces
  std::span<const TokenLogprobs> logprobs;   // [token_ids.size()], or empty when not asked for
};

enum class FinishReason { kStop, kLength, kCancelled };
[[nodiscard]] std::string_view to_string(FinishReason reason);

struct DecodeRequest {
  std::vector<TokenId> prompt;    // at least one token
  std::optional<int> max_tokens;  // >= 0; not set: until the context is full
  SamplingParams sampling;
  std::vector<TokenId> eog;       // end-of-generation tokens; not part of the result by default
  bool ignore_eos = false;        // forbids the eog tokens: they are never drawn
  std::vector<std::string> stop;  // needs `pieces`; not part of the result
  const TokenPieces* pieces = nullptr;
  std::optional<int> n_logprobs;  // >= 0: log-probabilities, with so many alternatives per token
  // Where the best tokens of a row and the sum that a head tells suffice for them, in the precision
  // of the head: cheaper than whole rows.
  bool logprobs_of_best = false;
  bool keep_eog = false;  // the result ends with the token that ended it

  TokenConstraint* constraint = nullptr;  // rules out tokens before anything else does

  std::string verifier = "auto";  // decode/verifiers/verifiers.def
  bool speculate = true;          // false: plain decoding, the drafter rests

  const std::atomic<bool>* cancel = nullptr;   // polled between passes and pieces of the prompt
  std::function<bool(const Chunk&)> on_chunk;  // false cancels; tokens not handed out are dropped
  std::function<void(const RoundInfo&)> on_round;
  std::function<void(int done, int total)> on_prompt;  // progress of reading the prompt

  RoundTrace* trace = nullptr;  // of adaptive drafting: nothing is drafted, all is written down
  Chance* chance = nullptr;     // replaces the seeded numbers of verifier and drafter; for tests

  // Throws Error(kInvalidArgument) naming option and range. vocab_size bounds the prompt's tokens.
  void validate(int vocab_size) const;
};

struct DecodeResult {
  std::vector<TokenId> token_ids;
  std::vector<std::uint8_t> from_draft;  // [token_ids.size()]
  std::string text;                      // bytes; empty without TokenPieces
  std::vector<TokenLogprobs> logprobs;   // [token_ids.size()], or empty
  FinishReason finish_reason = FinishReason::kLength;
  TokenId stop_token = -1;  // the eog token that ended it
  std::string stop_string;  // or the stop string
  DecodeStats stats;
};

}  // namespace specdec
