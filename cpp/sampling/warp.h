// Logits -> distribution of the next token. Pure: the row is never changed, so plain and
// speculative decoding, draft and target, use the same code.
//
// Order: logit_bias; repetition, presence and frequency penalties on the row's own prefix;
// temperature; top-k; top-p; min-p; Gaussian noise on the survivors (two-stage sampling). Each
// filter sees the probabilities renormalised over what the one before left. Ties: the lowest ids
// stay. Temperature 0 gives a one-hot distribution after bias and penalties; the later warps then
// change nothing.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/token.h"
#include "sampling/distribution.h"
#include "sampling/params.h"

namespace specdec {

// prefix: the tokens before the row's position, drafted ones of its path included (at least the
// last params.penalty_last_n of them). position: absolute index of the token that the row predicts.
// Throws Error(kNumerical) when a logit is NaN or +infinity or all are -infinity.
[[nodiscard]] Distribution warp(std::span<const float> logits, const SamplingParams& params,
                                std::span<const TokenId> prefix, std::uint64_t position);

// The same distribution from the row's best tokens alone, best first: for params.needs_only_top(),
// which says how many. Throws Error(kNumerical) when there is none.
[[nodiscard]] Distribution warp_top(std::span<const TopToken> top, const SamplingParams& params,
                                    std::uint64_t position);

// The row after logit_bias and penalties.
[[nodiscard]] std::vector<float> adjusted_logits(std::span<const float> logits,
                                                 const SamplingParams& params,
                                                 std::span<const TokenId> prefix);

}  // namespace specdec
