// Weights as the CPU kernels read them: tiles of 16 output rows, repacked once at load.
//
// A tile covers 16 rows and a unit of k (256 weights of a K-quant, 64 of a format with blocks of
// 32, 1 of a float format). The tiles of one group of 16 rows follow each other in k. Inside, a
// "line" of 64 bytes holds 4 consecutive k for each of the 16 rows (one byte each), so one vector
// lane is one output row and no sum ever crosses lanes. "Vector v" of a block of 32 k is k = 4v ..
// 4v+3.
//   nibble line j:   byte i of row r = q[8j + i] | q[8j + 4 + i] << 4         4 lines per 32 k
//   two-bit line j:  byte i of row r = sum over u of q[16j + 4u + i] << 2u    2 lines per 32 k
//   bit line:        byte i of row r = sum over v of q[4v + i] << v           1 line per 32 k
//   byte line v:     byte i of row r = q[4v + i]                              8 lines per 32 k
// A tile begins with its scales, then come the lines of each 32 k: first those of the codes' low
// bits, then those of the high ones. Scales of
//   blocks of 32   d[2][16], then m[2][16] if there is a minimum
//   kPairs32       f16 d[16], dmin[16]; u8 scale[8][16]; u8 min[4][16][2] (sub-blocks 2i and 2i+1
//                  side by side)
//   kPairs16       f16 d[16], dmin[16]; u8 scale | min << 4 [8][16][2]
//   kSigned16      f16 d[16] and 32 bytes unused; i8 scale[16][16]
//   kSigned32      the same, i8 scale[8][16]
//
// That is TileLines::kRows. With kRowPairs, which instructions that multiply two rows at once want,
// vectors 2u and 2u + 1 exchange words within four rows before they become lines: 2u holds k = 8u
// .. 8u+7 of the first two rows (4 k of a row, its next 4, then the other row's), 2u + 1 those of
// the other two. Sizes and scales are the same.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu_isa.h"
#include "quant/codes.h"
#include "tensor/dtype.h"

namespace specdec {

enum class TileLines { kRows, kRowPairs };

// Those that the kernels of an instruction set read.
[[nodiscard]] constexpr TileLines tile_lines(CpuIsa isa) {
  return isa == CpuIsa::kNeonI8mm ? TileLines::kRowPairs : TileLines::kRows;
}

struct TileFormat {
  std::int64_t unit = 0;       // weights of k per tile
  std::size_t tile_bytes = 0;  // bytes per tile of 16 rows
  // Packs one tile. rows[r]: the first block of row r's unit, n_valid of 16 rows exist (the others
  // become zero weights); n_weights < unit in the last unit of a row whose blocks are odd in
  // number.
  void (*pack)(const std::byte* const rows[16], int n_valid, std::int64_t n_weights,
               std::uint8_t* tile) = nullptr;
  // From TileLines::kRows to kRowPairs; nullptr: there are no lines.
  void (*pair_rows)(std::uint8_t* tile) = nullptr;
};

[[nodiscard]] const TileFormat& tile_format(DType dtype);

// Sizes of the tiles of a format of blocks.
template <class Block>
struct TileShape {
  static constexpr Codes kCodes = Block::kCodes;
  static constexpr bool kSuper = kCodes.scales != ScaleKind::kBlock;  // blocks of 256
  static constexpr int kHeaderBytes = !kSuper ? (kHasMin<Block> ? 128 : 64)
                                      : kCodes.scales == ScaleKind::kSigned32 ? 192
                                                                              : 320;
  static constexpr int kLowBytes = 64 * kCodes.low_bits;  // per 32 k
  static constexpr int kBlockBytes = kLowBytes + 64 * kCodes.high_bits;
  static constexpr int kBlocks = kSuper ? 8 : 2;  // of 32 k, in a tile
  static constexpr int kTileBytes = kHeaderBytes + kBlocks * kBlockBytes;
};

}  // namespace specdec
