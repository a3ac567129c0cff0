// Packs the formats with blocks of 32 codes of 4 or 5 bits. Tile of 2 blocks:
//   f16 d[2][16], f16 m[2][16] if the block has a minimum, then per block 4 nibble lines and, if it
//   has fifth bits, 1 bit line.
#pragma once

#include <cstring>

#include "quant/tile_format.h"

namespace specdec {

template <class Block>
inline constexpr bool kHasMinimum = requires(Block block) { block.m; };
template <class Block>
inline constexpr bool kHasFifthBit = requires(Block block) { block.qh; };

template <class Block>
inline constexpr std::size_t kPackedHeader = kHasMinimum<Block> ? 128 : 64;
template <class Block>
inline constexpr std::size_t kPackedBlock = (kHasFifthBit<Block> ? 5 : 4) * 64;

template <class Block>
void unpack_codes(const Block& block, std::uint8_t* q) {
  std::uint32_t high = 0;
  if constexpr (kHasFifthBit<Block>) std::memcpy(&high, block.qh, 4);
  for (int k = 0; k < 16; ++k) {
    q[k] = static_cast<std::uint8_t>((block.qs[k] & 15) | ((high >> k) & 1) << 4);
    q[k + 16] = static_cast<std::uint8_t>(block.qs[k] >> 4 | ((high >> (k + 16)) & 1) << 4);
  }
}

template <class Block>
void pack_blocks(const std::byte* const rows[16], int n_valid, std::int64_t n_weights,
                 std::uint8_t* tile) {
  std::memset(tile, 0, kPackedHeader<Block> + 2 * kPackedBlock<Block>);
  auto* scales = reinterpret_cast<std::uint16_t*>(tile);
  for (int b = 0; b < static_cast<int>(n_weights / 32); ++b) {
    Codes q{};
    for (int r = 0; r < n_valid; ++r) {
      const auto& block = reinterpret_cast<const Block*>(rows[r])[b];
      scales[16 * b + r] = block.d;
      if constexpr (kHasMinimum<Block>) scales[32 + 16 * b + r] = block.m;
      unpack_codes(block, q[r]);
    }
    std::uint8_t* lines =
        tile + kPackedHeader<Block> + static_cast<std::size_t>(b) * kPackedBlock<Block>;
    pack_nibbles(q, lines);
    if constexpr (kHasFifthBit<Block>) pack_bits(q, 4, lines + 256);
  }
}

template <class Block>
inline constexpr TileFormat kPackedFormat{64, kPackedHeader<Block> + 2 * kPackedBlock<Block>,
                                          pack_blocks<Block>};

}  // namespace specdec
