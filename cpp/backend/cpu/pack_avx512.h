// Vectors of 512 bits for pack-inl.h.
#pragma once

namespace specdec::SPECDEC_KERNELS {

inline constexpr int kPackBytes = 64;
using Words [[gnu::vector_size(kPackBytes)]] = std::uint32_t;
using Pairs [[gnu::vector_size(kPackBytes)]] = std::uint64_t;
using Bytes [[gnu::vector_size(kPackBytes)]] = std::uint8_t;

SPECDEC_INLINE inline auto load_quad(const std::byte* p) {
  std::uint32_t out [[gnu::vector_size(16)]];
  __builtin_memcpy(&out, p, 16);
  return out;
}

// 16 bytes of each of the rows first, first + 4, first + 8, first + 12.
SPECDEC_INLINE inline Words load_quads(const std::byte* const* rows, int first,
                                       std::size_t offset) {
  const auto low = shuffle<0, 1, 2, 3, 4, 5, 6, 7>(load_quad(rows[first] + offset),
                                                   load_quad(rows[first + 4] + offset));
  const auto high = shuffle<0, 1, 2, 3, 4, 5, 6, 7>(load_quad(rows[first + 8] + offset),
                                                    load_quad(rows[first + 12] + offset));
  return shuffle<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>(low, high);
}

// Within each 16 bytes: a0 b0 a1 b1, and a2 b2 a3 b3.
SPECDEC_INLINE inline Words zip_low(Words a, Words b) {
  return shuffle<0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29>(a, b);
}
SPECDEC_INLINE inline Words zip_high(Words a, Words b) {
  return shuffle<2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31>(a, b);
}
// The same for pairs of words: a0 b0, and a1 b1.
SPECDEC_INLINE inline Words zip_low64(Words a, Words b) {
  return reinterpret_cast<Words>(
      shuffle<0, 8, 2, 10, 4, 12, 6, 14>(reinterpret_cast<Pairs>(a), reinterpret_cast<Pairs>(b)));
}
SPECDEC_INLINE inline Words zip_high64(Words a, Words b) {
  return reinterpret_cast<Words>(
      shuffle<1, 9, 3, 11, 5, 13, 7, 15>(reinterpret_cast<Pairs>(a), reinterpret_cast<Pairs>(b)));
}

// The low halves of all words, then the high halves.
SPECDEC_INLINE inline Words split_halves(Words w) {
  const auto b = reinterpret_cast<Bytes>(w);
  const auto p = reinterpret_cast<Pairs>(
      shuffle<0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 16, 17, 20, 21, 24, 25, 28, 29,
              18, 19, 22, 23, 26, 27, 30, 31, 32, 33, 36, 37, 40, 41, 44, 45, 34, 35, 38, 39, 42,
              43, 46, 47, 48, 49, 52, 53, 56, 57, 60, 61, 50, 51, 54, 55, 58, 59, 62, 63>(b, b));
  return reinterpret_cast<Words>(shuffle<0, 2, 4, 6, 1, 3, 5, 7>(p, p));
}

// The lowest bytes of all words, then the second lowest, ...
SPECDEC_INLINE inline Words split_bytes(Words w) {
  const auto b = reinterpret_cast<Bytes>(w);
  const auto p = reinterpret_cast<Words>(
      shuffle<0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 16, 20, 24, 28, 17, 21, 25, 29,
              18, 22, 26, 30, 19, 23, 27, 31, 32, 36, 40, 44, 33, 37, 41, 45, 34, 38, 42, 46, 35,
              39, 43, 47, 48, 52, 56, 60, 49, 53, 57, 61, 50, 54, 58, 62, 51, 55, 59, 63>(b, b));
  return reinterpret_cast<Words>(
      shuffle<0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15>(p, p));
}

}  // namespace specdec::SPECDEC_KERNELS
