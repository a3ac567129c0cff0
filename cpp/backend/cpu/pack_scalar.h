// Vectors of 128 bits for pack-inl.h. Plain vector types: any machine has them.
#pragma once

namespace specdec::SPECDEC_KERNELS {

inline constexpr int kPackBytes = 16;
using Words [[gnu::vector_size(kPackBytes)]] = std::uint32_t;
using Pairs [[gnu::vector_size(kPackBytes)]] = std::uint64_t;
using Bytes [[gnu::vector_size(kPackBytes)]] = std::uint8_t;

// 16 bytes of the row first.
SPECDEC_INLINE inline Words load_quads(const std::byte* const* rows, int first,
                                       std::size_t offset) {
  Words out;
  __builtin_memcpy(&out, rows[first] + offset, 16);
  return out;
}

// Within each 16 bytes: a0 b0 a1 b1, and a2 b2 a3 b3.
SPECDEC_INLINE inline Words zip_low(Words a, Words b) { return shuffle<0, 4, 1, 5>(a, b); }
SPECDEC_INLINE inline Words zip_high(Words a, Words b) { return shuffle<2, 6, 3, 7>(a, b); }
// The same for pairs of words: a0 b0, and a1 b1.
SPECDEC_INLINE inline Words zip_low64(Words a, Words b) {
  return reinterpret_cast<Words>(
      shuffle<0, 2>(reinterpret_cast<Pairs>(a), reinterpret_cast<Pairs>(b)));
}
SPECDEC_INLINE inline Words zip_high64(Words a, Words b) {
  return reinterpret_cast<Words>(
      shuffle<1, 3>(reinterpret_cast<Pairs>(a), reinterpret_cast<Pairs>(b)));
}

// The low halves of all words, then the high halves.
SPECDEC_INLINE inline Words split_halves(Words w) {
  // In steps that SSE2 has.
  using Halves [[gnu::vector_size(kPackBytes)]] = std::uint16_t;
  auto h = reinterpret_cast<Halves>(w);
  h = shuffle<0, 2, 1, 3, 4, 5, 6, 7>(h, h);
  h = shuffle<0, 1, 2, 3, 4, 6, 5, 7>(h, h);
  w = reinterpret_cast<Words>(h);
  return shuffle<0, 2, 1, 3>(w, w);
}

// The lowest bytes of all words, then the second lowest, ...
SPECDEC_INLINE inline Words split_bytes(Words w) {
  const auto b = reinterpret_cast<Bytes>(w);
  return reinterpret_cast<Words>(
      shuffle<0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15>(b, b));
}

}  // namespace specdec::SPECDEC_KERNELS
