#include "backend/cpu/tiles/tile_format.h"

#include <cstring>

#include "base/error.h"
#include "quant/blocks.h"

namespace specdec {
namespace {

using Rows = const std::byte* const*;
using RowCodes = std::uint8_t[16][32];  // of each row, 32 codes

// Four neighbouring codes as one word.
std::uint32_t word(const std::uint8_t* codes) {
  std::uint32_t out;
  std::memcpy(&out, codes, 4);
  return out;
}

void put(std::uint8_t* lines, int line, int row, std::uint32_t value) {
  std::memcpy(lines + line * 64 + row * 4, &value, 4);
}

// The lines of bits shift .. shift + kBits - 1 of each code.
template <int kBits>
void pack_lines(const RowCodes& q, int shift, std::uint8_t* lines) {
  static_assert(kBits == 1 || kBits == 2 || kBits == 4 || kBits == 8);
  constexpr std::uint32_t kMask = 0x01010101U * ((1U << kBits) - 1);
  constexpr int kWords = 8 / kBits;  // that share a line
  for (int line = 0; line < kBits; ++line) {
    for (int r = 0; r < 16; ++r) {
      std::uint32_t out = 0;
      for (int u = 0; u < kWords; ++u)
        out |= ((word(q[r] + 4 * (kWords * line + u)) >> shift) & kMask) << (kBits * u);
      put(lines, line, r, out);
    }
  }
}

template <class Block>
void pack_codes(const RowCodes& q, std::uint8_t* lines) {
  using Shape = TileShape<Block>;
  pack_lines<Shape::kCodes.low_bits>(q, 0, lines);
  if constexpr (Shape::kCodes.high_bits > 0)
    pack_lines<Shape::kCodes.high_bits>(q, Shape::kCodes.low_bits, lines + Shape::kLowBytes);
}

// Scales of row r of a block of 256.
template <class Block>
void pack_scales(const Block& block, int r, std::uint8_t* tile) {
  constexpr ScaleKind kKind = Block::kCodes.scales;
  constexpr int kSubs = 256 / Block::kCodes.sub_block();
  for (int s = 0; s < kSubs; ++s) {
    const auto scale = static_cast<std::uint8_t>(block.scale(s));
    if constexpr (kKind == ScaleKind::kPairs16) {
      tile[64 + 32 * (s / 2) + 2 * r + s % 2] =
          static_cast<std::uint8_t>(scale | block.min(s) << 4);
    } else {
      tile[64 + 16 * s + r] = scale;
    }
    if constexpr (kKind == ScaleKind::kPairs32)
      tile[192 + 32 * (s / 2) + 2 * r + s % 2] = static_cast<std::uint8_t>(block.min(s));
  }
}

template <class Block>
void pack_blocks(Rows rows, int n_valid, std::int64_t n_weights, std::uint8_t* tile) {
  using Shape = TileShape<Block>;
  std::memset(tile, 0, Shape::kTileBytes);
  auto* scales = reinterpret_cast<std::uint16_t*>(tile);
  for (int b = 0; b < static_cast<int>(n_weights / 32); ++b) {
    RowCodes q{};
    for (int r = 0; r < n_valid; ++r) {
      const auto* blocks = reinterpret_cast<const Block*>(rows[r]);
      if constexpr (Shape::kSuper) {
        blocks->codes(b, q[r]);
        if (b > 0) continue;
        scales[r] = d_bits_of(*blocks);
        if constexpr (kHasMin<Block>) scales[16 + r] = m_bits_of(*blocks);
        pack_scales(*blocks, r, tile);
      } else {
        blocks[b].codes(0, q[r]);
        scales[16 * b + r] = d_bits_of(blocks[b]);
        if constexpr (kHasMin<Block>) scales[32 + 16 * b + r] = m_bits_of(blocks[b]);
      }
    }
    pack_codes<Block>(q, tile + Shape::kHeaderBytes + b * Shape::kBlockBytes);
  }
}

// The lines of kBits bits of a block, from kRows to kRowPairs. Where vectors 2u and 2u + 1 share a
// line, the exchange is one within its words.
template <int kBits>
void pair_lines(std::uint8_t* lines) {
  constexpr std::uint32_t kEven = kBits == 1 ? 0x55555555U : kBits == 2 ? 0x33333333U : 0x0F0F0F0FU;
  std::uint32_t a[4], b[4];
  for (int at = 0; at < kBits * 64; at += 16) {  // four rows of a line
    if constexpr (kBits == 8) {
      if (at / 64 % 2 != 0) continue;
      std::memcpy(a, lines + at, 16);
      std::memcpy(b, lines + at + 64, 16);
      const std::uint32_t first[] = {a[0], b[0], a[1], b[1]};
      const std::uint32_t second[] = {a[2], b[2], a[3], b[3]};
      std::memcpy(lines + at, first, 16);
      std::memcpy(lines + at + 64, second, 16);
    } else {
      std::memcpy(a, lines + at, 16);
      for (int r = 0; r < 4; ++r) {
        b[r] = a[r] >> kBits & kEven;
        a[r] &= kEven;
      }
      const std::uint32_t both[] = {a[0] | a[2] << kBits, b[0] | b[2] << kBits,
                                    a[1] | a[3] << kBits, b[1] | b[3] << kBits};
      std::memcpy(lines + at, both, 16);
    }
  }
}

template <class Block>
void pair_rows(std::uint8_t* tile) {
  using Shape = TileShape<Block>;
  for (int b = 0; b < Shape::kBlocks; ++b) {
    std::uint8_t* lines = tile + Shape::kHeaderBytes + b * Shape::kBlockBytes;
    pair_lines<Shape::kCodes.low_bits>(lines);
    if constexpr (Shape::kCodes.high_bits > 0)
      pair_lines<Shape::kCodes.high_bits>(lines + Shape::kLowBytes);
  }
}

// One k: the weights of 16 rows side by side.
template <int kBytes>
void pack_values(Rows rows, int n_valid, std::int64_t, std::uint8_t* tile) {
  std::memset(tile, 0, 16 * kBytes);
  for (int r = 0; r < n_valid; ++r) std::memcpy(tile + kBytes * r, rows[r], kBytes);
}

constexpr TileFormat kFormats[] = {
// in the list's order, as dtype_index() counts
#define SPECDEC_PLAIN(name, folder, id, bytes, ...) {1, 16 * bytes, pack_values<bytes>, nullptr},
#define SPECDEC_BLOCK(name, ...)                                             \
  {32 * TileShape<Block##name>::kBlocks, TileShape<Block##name>::kTileBytes, \
   pack_blocks<Block##name>, pair_rows<Block##name>},
#include "tensor/formats.def"
};

}  // namespace

const TileFormat& tile_format(DType dtype) { return kFormats[dtype_index(dtype)]; }

}  // namespace specdec
