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
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace specdec {

struct TileFormat {
  std::int64_t unit = 0;       // weights of k per tile
  std::size_t tile_bytes = 0;  // bytes per tile of 16 rows
  // Packs one tile. rows[r]: the first block of row r's unit, n_valid of 16 rows exist (the others
  // become zero weights); n_weights < unit in the last unit of a row whose blocks are odd in
  // number.
  void (*pack)(const std::byte* const rows[16], int n_valid, std::int64_t n_weights,
               std::uint8_t* tile) = nullptr;
};

[[nodiscard]] const TileFormat& tile_format(DType dtype);

// Helpers for pack functions: q[r][k], 16 rows x 32 codes.
using Codes = std::uint8_t[16][32];
void pack_nibbles(const Codes& q, std::uint8_t* lines);  // 4 lines, low 4 bits of each code
void pack_two_bits(const Codes& q, int shift, std::uint8_t* lines);  // 2 lines, bits shift, shift+1
void pack_bits(const Codes& q, int shift, std::uint8_t* line);       // 1 line, bit `shift`
void pack_bytes(const Codes& q, std::uint8_t* lines);                // 8 lines

}  // namespace specdec
