#include "sampling/gumbel.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/rng.h"
#include "sampling/fixed_math.h"
#include "sampling/row_loops.h"

namespace specdec {
namespace {

// The top 8 bits of each token's uniform come eight tokens at a time, the low 24 only when needed:
// a token far below the best needs a uniform so close to 1 that the top bits almost always rule it
// out.
constexpr std::uint32_t kTokensPerBlock = 8;
constexpr std::uint32_t kFineIndex = 0x80000000U;

std::uint64_t coarse_block(std::uint64_t seed, std::uint64_t position, std::uint32_t block) {
  return random_bits(seed, RngStream::kGumbel, position, block);
}

std::uint32_t coarse_of(std::uint64_t block_bits, std::uint32_t token) {
  return static_cast<std::uint32_t>(block_bits >> (8 * (token % kTokensPerBlock))) & 0xFFU;
}

double gumbel_of_uniform(std::uint32_t bits) {
  const double u = (static_cast<double>(bits) + 0.5) * 0x1.0p-32;
  return -fixed_log(-fixed_log(u));
}

double exact_noise(std::uint64_t seed, std::uint64_t position, std::uint32_t token,
                   std::uint32_t coarse) {
  const std::uint64_t fine = random_bits(seed, RngStream::kGumbel, position, kFineIndex | token);
  return gumbel_of_uniform(coarse << 24 | static_cast<std::uint32_t>(fine >> 40));
}

// Largest noise a token can have, by its top 8 bits.
const std::array<double, 256>& upper_bounds() {
  static const std::array<double, 256> table = [] {
    std::array<double, 256> bounds{};
    for (std::uint32_t c = 0; c < 256; ++c) bounds[c] = gumbel_of_uniform(c << 24 | 0xFFFFFFU);
    return bounds;
  }();
  return table;
}

}  // namespace

double gumbel_noise(std::uint64_t seed, std::uint64_t position, TokenId token) {
  const auto id = static_cast<std::uint32_t>(token);
  return exact_noise(seed, position, id,
                     coarse_of(coarse_block(seed, position, id / kTokensPerBlock), id));
}

namespace {

// The best token so far.
struct Best {
  TokenId token;
  double score;

  // Of a token whose top bits do not rule it out.
  void look_at(std::uint32_t token_id, double log_weight, std::uint32_t coarse, std::uint64_t seed,
               std::uint64_t position) {
    const double other = log_weight + exact_noise(seed, position, token_id, coarse);
    const auto id = static_cast<TokenId>(token_id);
    if (other > score || (other == score && id < token)) *this = {id, other};
  }
};

// The tokens of a group whose top bits are all ones: their noise may be anything.
std::uint64_t highest(std::span<const std::uint64_t, kRandomLanes> blocks) {
  std::uint64_t out = 0;
  for (std::size_t b = 0; b < kRandomLanes; ++b) {
    // Bytes of ones have their top bit set, and it stays where the other seven bits carry into it.
    constexpr std::uint64_t kTop = 0x8080808080808080U;
    const std::uint64_t ones = blocks[b] & ((blocks[b] & ~kTop) + ~kTop / 127) & kTop;
    out |= (ones >> 7) * 0x0102040810204080U >> 56 << (kTokensPerBlock * b);
  }
  return out;
}

// All tokens of a vocabulary.
void look_at_all(Best& best, std::span<const double> log_weights, std::uint64_t seed,
                 std::uint64_t position) {
  constexpr std::size_t kGroup = kRandomLanes * kTokensPerBlock;
  static_assert(kGroup == kMaskBits);
  const std::array<double, 256>& bounds = upper_bounds();
  const double usual = bounds[254] + 1e-9;  // more than the noise of other tokens, and rounding
  std::array<std::uint64_t, kRandomLanes> blocks{};
  for (std::size_t first = 0; first < log_weights.size(); first += kGroup) {
    random_bits(seed, RngStream::kGumbel, position,
                static_cast<std::uint32_t>(first / kTokensPerBlock), blocks);
    const std::size_t n = std::min(kGroup, log_weights.size() - first);
    std::uint64_t candidates =
        at_least(log_weights.subspan(first, n), best.score - usual) | highest(blocks);
    if (n < kGroup) candidates &= (std::uint64_t{1} << n) - 1;
    for_each_bit(candidates, [&](std::size_t i) {
      const auto token = static_cast<std::uint32_t>(first + i);
      const std::uint32_t coarse = coarse_of(blocks[i / kTokensPerBlock], token);
      const double log_weight = log_weights[first + i];
      if (log_weight + bounds[coarse] >= best.score)
        best.look_at(token, log_weight, coarse, seed, position);
    });
  }
}

}  // namespace

TokenId gumbel_argmax(const Distribution& distribution, std::uint64_t seed,
                      std::uint64_t position) {
  Best best{distribution.best_token(), 0.0};
  if (distribution.is_one_hot()) return best.token;
  const std::array<double, 256>& bounds = upper_bounds();
  const std::span<const double> log_weights = distribution.log_weights();
  best.score = log_weights[distribution.best_entry()] + gumbel_noise(seed, position, best.token);
  if (distribution.is_dense()) {
    look_at_all(best, log_weights, seed, position);
    return best.token;
  }
  std::uint64_t block_bits = 0;
  std::uint32_t block = ~0U;
  for (std::size_t entry = 0; entry < log_weights.size(); ++entry) {
    const double log_weight = log_weights[entry];
    if (log_weight < best.score - kGumbelMax) continue;  // cannot win
    const auto token = static_cast<std::uint32_t>(distribution.token(entry));
    if (token / kTokensPerBlock != block) {
      block = token / kTokensPerBlock;
      block_bits = coarse_block(seed, position, block);
    }
    const std::uint32_t coarse = coarse_of(block_bits, token);
    if (log_weight + bounds[coarse] < best.score) continue;
    best.look_at(token, log_weight, coarse, seed, position);
  }
  return best.token;
}

double gaussian_noise(std::uint64_t seed, std::uint64_t position, TokenId token) {
  // Box-Muller; the square root is correctly rounded by IEEE 754.
  const std::uint64_t bits =
      random_bits(seed, RngStream::kTwoStage, position, static_cast<std::uint32_t>(token));
  const double u1 = (static_cast<double>(bits >> 32) + 0.5) * 0x1.0p-32;
  const double u2 = static_cast<double>(bits & 0xFFFFFFFFU) * 0x1.0p-32;
  return std::sqrt(-2.0 * fixed_log(u1)) * fixed_cos_turns(u2);
}

}  // namespace specdec
