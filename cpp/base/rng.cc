#include "base/rng.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/cpu_isa.h"

namespace specdec {
namespace {

constexpr int kRounds = 10;
constexpr std::uint32_t kFactor0 = 0xD2511F53U, kFactor1 = 0xCD9E8D57U;
constexpr std::uint32_t kKeyStep0 = 0x9E3779B9U, kKeyStep1 = 0xBB67AE85U;

// Philox-4x32-10: the 128-bit counter is (position, stream, index), the key is the seed. For n
// indices side by side, which compilers make vectors of.
template <std::size_t n>
[[gnu::always_inline]] inline void philox(std::uint64_t seed, RngStream stream,
                                          std::uint64_t position, std::uint32_t first,
                                          std::uint64_t* out) {
  std::uint32_t c0[n], c1[n], c2[n], c3[n];
  for (std::size_t i = 0; i < n; ++i) {
    c0[i] = static_cast<std::uint32_t>(position);
    c1[i] = static_cast<std::uint32_t>(position >> 32);
    c2[i] = static_cast<std::uint32_t>(stream);
    c3[i] = first + static_cast<std::uint32_t>(i);
  }
  auto k0 = static_cast<std::uint32_t>(seed);
  auto k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < kRounds; ++round) {
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint64_t p0 = std::uint64_t{kFactor0} * c0[i];
      const std::uint64_t p1 = std::uint64_t{kFactor1} * c2[i];
      c0[i] = static_cast<std::uint32_t>(p1 >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<std::uint32_t>(p0 >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<std::uint32_t>(p1);
      c3[i] = static_cast<std::uint32_t>(p0);
    }
    k0 += kKeyStep0;
    k1 += kKeyStep1;
  }
  for (std::size_t i = 0; i < n; ++i) out[i] = (static_cast<std::uint64_t>(c1[i]) << 32) | c0[i];
}

}  // namespace

std::uint64_t random_bits(std::uint64_t seed, RngStream stream, std::uint64_t position,
                          std::uint32_t index) {
  std::uint64_t bits = 0;
  philox<1>(seed, stream, position, index, &bits);
  return bits;
}

// Integers: the same on every instruction set.
namespace scalar {
static void random_lanes(std::uint64_t seed, RngStream stream, std::uint64_t position,
                         std::uint32_t first, std::uint64_t* out) {
  philox<kRandomLanes>(seed, stream, position, first, out);
}
}  // namespace scalar
#if defined(__x86_64__)
// Lanes of 64 bits of which only the lower halves count: their products are the next round's words
// as they are, and those shifted.
namespace avx2 {
[[gnu::target("avx2")]] static void random_lanes(std::uint64_t seed, RngStream stream,
                                                 std::uint64_t position, std::uint32_t first,
                                                 std::uint64_t* out) {
  static_assert(kRandomLanes == 8);
  const __m256i m0 = _mm256_set1_epi64x(kFactor0), m1 = _mm256_set1_epi64x(kFactor1);
  const __m256i index =
      _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(first)), _mm256_setr_epi64x(0, 1, 2, 3));
  __m256i c0[2], c1[2], c2[2], c3[2] = {index, _mm256_add_epi32(index, _mm256_set1_epi64x(4))};
  for (int h = 0; h < 2; ++h) {
    c0[h] = _mm256_set1_epi64x(static_cast<long long>(position));
    c1[h] = _mm256_set1_epi64x(static_cast<long long>(position >> 32));
    c2[h] = _mm256_set1_epi64x(static_cast<long long>(stream));
  }
  auto k0 = static_cast<std::uint32_t>(seed);
  auto k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < kRounds; ++round) {
    const __m256i key0 = _mm256_set1_epi64x(k0), key1 = _mm256_set1_epi64x(k1);
    for (int h = 0; h < 2; ++h) {
      const __m256i p0 = _mm256_mul_epu32(c0[h], m0), p1 = _mm256_mul_epu32(c2[h], m1);
      c0[h] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), c1[h]), key0);
      c2[h] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), c3[h]), key1);
      c1[h] = p1;
      c3[h] = p0;
    }
    k0 += kKeyStep0;
    k1 += kKeyStep1;
  }
  for (int h = 0; h < 2; ++h) {
    const __m256i words = _mm256_blend_epi32(c0[h], _mm256_slli_epi64(c1[h], 32), 0xAA);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 4 * h), words);
  }
}
}  // namespace avx2
#endif

namespace {

using RandomLanes = void (*)(std::uint64_t, RngStream, std::uint64_t, std::uint32_t,
                             std::uint64_t*);

RandomLanes best_random_lanes() {
#if defined(__x86_64__)
  if (active_cpu_isa() != CpuIsa::kScalar) return avx2::random_lanes;
#endif
  return scalar::random_lanes;
}

}  // namespace

void random_bits(std::uint64_t seed, RngStream stream, std::uint64_t position, std::uint32_t first,
                 std::span<std::uint64_t, kRandomLanes> out) {
  static const RandomLanes best = best_random_lanes();
  best(seed, stream, position, first, out.data());
}

}  // namespace specdec
