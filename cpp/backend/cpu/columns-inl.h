// Walking tiles and columns. Included inside a target region, after the instruction set's Simd.
#pragma once

namespace specdec::SPECDEC_KERNELS {

// Columns that share one pass over the decoded registers: enough chains to hide the dot latency.
inline constexpr int kGroup = 4;
// How far ahead of the stream of tiles to prefetch, in bytes.
inline constexpr int kPrefetchAhead = 4096;
// Register halves, quarters, ... that make up the rows of a tile.
inline constexpr int kParts = kTileRows / Simd::kLanes;

template <int kBytes>
SPECDEC_INLINE inline void prefetch_lines(const std::uint8_t* p) {
  for (int i = 0; i < kBytes; i += 64) Simd::prefetch(p + i);
}

// Calls f<first, n>() for groups of at most kSize of kCols columns, all known at compile time.
template <int kCols, int kSize = kGroup, int kFirst = 0, class F>
SPECDEC_INLINE inline void for_groups(F&& f) {
  constexpr int kN = kCols - kFirst < kSize ? kCols - kFirst : kSize;
  f.template operator()<kFirst, kN>();
  if constexpr (kFirst + kN < kCols) for_groups<kCols, kSize, kFirst + kN>(f);
}

// Sets the kernels of one format for every number of columns.
#define SPECDEC_FILL(table, dtype, kernel, Format)                         \
  [&]<int... kC>(std::integer_sequence<int, kC...>) {                      \
    ((table.tile[dtype_index(dtype)][kC] = &kernel<Format, kC + 1>), ...); \
  }(std::make_integer_sequence<int, kMaxColumns>())

}  // namespace specdec::SPECDEC_KERNELS
