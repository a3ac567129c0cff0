// Vectors of 256 bits for pack-inl.h.
#pragma once

namespace specdec::SPECDEC_KERNELS {

inline constexpr int kPackBytes = 32;
using Words [[gnu::vector_size(kPackBytes)]] = std::uint32_t;
using Pairs [[gnu::vector_size(kPackBytes)]] = std::uint64_t;
using Bytes [[gnu::vector_size(kPackBytes)]] = std::uint8_t;

SPECDEC_INLINE inline auto load_quad(const std::byte* p) {
  std::uint32_t out [[gnu::vector_size(16)]];
  __builtin_memcpy(&out, p, 16);
  return out;
}

// 16 bytes of each of the rows first, first + 4.
SPECDEC_INLINE inline Words load_quads(const std::byte* const* rows, int first,
                                       std::size_t offset) {
  return shuffle<0, 1, 2, 3, 4, 5, 6, 7>(load_quad(rows[first] + offset),
                                         load_quad(rows[first + 4] + offset));
}

// Within each 16 bytes: a0 b0 a1 b1, and a2 b2 a3 b3.
SPECDEC_INLINE inline Words zip_low(Words a, Words b) {
  return shuffle<0, 8, 1, 9, 4, 12, 5, 13>(a, b);
}
SPECDEC_INLINE inline Words zip_high(Words a, Words b) {
  return shuffle<2, 10, 3, 11, 6, 14, 7, 15>(a, b);
}
// The same for pairs of words: a0 b0, and a1 b1.
SPECDEC_INLINE inline Words zip_low64(Words a, Words b) {
  return reinterpret_cast<Words>(
      shuffle<0, 4, 2, 6>(reinterpret_cast<Pairs>(a), reinterpret_cast<Pairs>(b)));
}
SPECDEC_INLINE inline Words zip_high64(Words a, Words b) {
  return reinterpret_cast<Words>(
      shuffle<1, 5, 3, 7>(reinterpret_cast<Pairs>(a), reinterpret_cast<Pairs>(b)));
}

// The low halves of all words, then the high halves.
SPECDEC_INLINE inline Words split_halves(Words w) {
  const auto b = reinterpret_cast<Bytes>(w);
  const auto p = reinterpret_cast<Pairs>(
      shuffle<0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 16, 17, 20, 21, 24, 25, 28, 29,
              18, 19, 22, 23, 26, 27, 30, 31>(b, b));
  return reinterpret_cast<Words>(shuffle<0, 2, 1, 3>(p, p));
}

// The lowest bytes of all words, then the second lowest, ...
SPECDEC_INLINE inline Words split_bytes(Words w) {
  const auto b = reinterpret_cast<Bytes>(w);
  const auto p = reinterpret_cast<Words>(
      shuffle<0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 16, 20, 24, 28, 17, 21, 25, 29,
              18, 22, 26, 30, 19, 23, 27, 31>(b, b));
  return reinterpret_cast<Words>(shuffle<0, 4, 1, 5, 2, 6, 3, 7>(p, p));
}

}  // namespace specdec::SPECDEC_KERNELS
