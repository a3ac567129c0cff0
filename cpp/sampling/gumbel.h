// Random choice whose noise is a fixed field over (seed, absolute position, token id): given the
// seed, the token at a position depends on the distribution there and on nothing else.
#pragma once

#include <cstdint>

#include "base/token.h"
#include "sampling/distribution.h"

namespace specdec {

// Standard Gumbel noise from a 32-bit uniform, hence bounded: kGumbelMin < G < kGumbelMax.
[[nodiscard]] double gumbel_noise(std::uint64_t seed, std::uint64_t position, TokenId token);
inline constexpr double kGumbelMin = -3.2;
inline constexpr double kGumbelMax = 22.9;

// argmax over the support of log weight + noise; ties go to the lowest id. Follows the distribution
// when the seed is random. Exact, yet evaluates the noise of few tokens: those that its bounds
// cannot rule out.
[[nodiscard]] TokenId gumbel_argmax(const Distribution& distribution, std::uint64_t seed,
                                    std::uint64_t position);

// Standard normal noise of the two-stage warp, a field over the same key.
[[nodiscard]] double gaussian_noise(std::uint64_t seed, std::uint64_t position, TokenId token);

}  // namespace specdec
