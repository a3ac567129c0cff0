// Counter-based random numbers: a pure function of (seed, stream, position, index), no hidden
// state, so a result never depends on the order of calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace specdec {

// Who draws. Streams never share numbers.
enum class RngStream : std::uint32_t {
  kGumbel = 1,    // target noise of plain sampling and `match`, keyed by absolute position
  kTwoStage = 2,  // Gaussian noise of the two-stage warp, keyed by absolute position
  kAccept = 3,    // verifier coins, keyed by round
  kResidual = 4,  // verifier residual and bonus draws, keyed by round
  kDraft = 5,     // the draft model's own draws, keyed by round
  kShuffle = 6,
};

// 64 well-mixed bits (Philox-4x32-10, Salmon et al. 2011).
[[nodiscard]] std::uint64_t random_bits(std::uint64_t seed, RngStream stream,
                                        std::uint64_t position, std::uint32_t index);

// The same of so many indices from `first` on, in half of the time and less.
inline constexpr std::size_t kRandomLanes = 8;
void random_bits(std::uint64_t seed, RngStream stream, std::uint64_t position, std::uint32_t first,
                 std::span<std::uint64_t, kRandomLanes> out);

// Uniform in [0, 1) with 53 bits.
[[nodiscard]] inline double random_uniform(std::uint64_t seed, RngStream stream,
                                           std::uint64_t position, std::uint32_t index) {
  return static_cast<double>(random_bits(seed, stream, position, index) >> 11) * 0x1.0p-53;
}

}  // namespace specdec
