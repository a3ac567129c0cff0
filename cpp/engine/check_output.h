// Proof on the user's own prompt: the same request decoded plainly, and compared.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/session.h"

namespace specdec {

struct OutputCheck {
  bool identical = false;              // tokens and why they ended
  bool cancelled = false;              // should_cancel said so: nothing is known
  std::int64_t n_tokens = 0;           // of the result that was checked
  std::int64_t first_difference = -1;  // position; -1: none, or one only in why it ended
  std::string difference;              // in words; empty when identical
  GenerateResult plain;
};

// Throws Error(kInvalidArgument) when plain decoding need not give the same tokens: above
// temperature 0 only `match` ties each token to seed and position.
void require_checkable(const std::string& verifier, const SamplingParams& sampling);

// Decodes `request` again, in a new session without a drafter that reads the whole prompt itself.
// Of the request's callbacks only should_cancel is called.
[[nodiscard]] OutputCheck check_output(const std::shared_ptr<const LoadedModel>& target,
                                       const SessionOptions& options, GenerateRequest request,
                                       const GenerateResult& result);

}  // namespace specdec
