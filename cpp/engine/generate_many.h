// Several prompts at once: their sequences go through the model together, so that one reading of
// the weights serves all of them. For making data, not for the first token to come soon.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/token.h"
#include "engine/hidden_states.h"
#include "engine/loaded_model.h"
#include "sampling/logprobs.h"
#include "sampling/params.h"

namespace specdec {

struct ManyRequest {
  std::vector<std::vector<TokenId>> prompts;
  std::vector<std::uint64_t> seeds;  // [prompts]; sampling.seed is not used
  std::vector<int> max_tokens;       // [prompts]; -1: until the context is full
  SamplingParams sampling;
  bool ignore_eos = false;
  int n_logprobs = -1;    // >= 0: log-probabilities, with so many alternatives per token, to 256
  int n_parallel = 16;    // sequences in one pass, 1..kMaxParallel
  int n_ctx = 0;          // positions of each sequence; 0: the model's own, at most 4096
  std::string kv_type;    // "": the model's
  bool keep_eos = false;  // the result ends with the token that ended it
  std::vector<std::int32_t> layers;  // whose hidden states are wanted; as read_hidden_states
  // The token of this call: true, from any thread and at any time, ends all with "cancelled",
  // within a pass too. It is also set when should_cancel says so.
  std::atomic<bool>* cancel = nullptr;
  // Asked before every pass and a few times a second while prompts are read; true ends all with
  // "cancelled".
  std::function<bool()> should_cancel;
  std::function<void(std::size_t n_done)> on_progress;  // sequences that have ended
};

struct ManyResult {
  std::vector<TokenId> token_ids;
  std::string finish_reason;            // "stop", "length", "cancelled"
  std::vector<TokenLogprobs> logprobs;  // [token_ids] or empty
  // Of prompt and output, so far as the model read them: of all but the token chosen last, whether
  // it is part of the result or not.
  HiddenStates hidden_states;
};

inline constexpr int kMaxParallel = 64;

// Result i has the tokens that a session without a drafter gives for prompts[i] and seeds[i].
// Throws kInvalidArgument, kContextFull when a prompt and one token do not fit, kResource.
[[nodiscard]] std::vector<ManyResult> generate_many(const LoadedModel& model,
                                                    const ManyRequest& request);

}  // namespace specdec
