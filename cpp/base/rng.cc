#include "base/rng.h"

#include "base/cpu_isa.h"

namespace specdec {
namespace {

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
  for (int round = 0; round < 10; ++round) {
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c0[i];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * c2[i];
      c0[i] = static_cast<std::uint32_t>(p1 >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<std::uint32_t>(p0 >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<std::uint32_t>(p1);
      c3[i] = static_cast<std::uint32_t>(p0);
    }
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
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
namespace avx2 {
[[gnu::target("avx2")]] static void random_lanes(std::uint64_t seed, RngStream stream,
                                                 std::uint64_t position, std::uint32_t first,
                                                 std::uint64_t* out) {
  philox<kRandomLanes>(seed, stream, position, first, out);
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
