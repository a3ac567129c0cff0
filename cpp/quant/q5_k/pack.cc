#include <cstring>

#include "quant/k_scales.h"
#include "quant/q5_k/block.h"
#include "quant/tile_format.h"

namespace specdec {
namespace {

// Tile of 256 k:
//   f16 d[16], dmin[16]; u8 scale[8][16]; u8 min[4][16][2] (sub-blocks 2i and 2i+1 side by side);
//   per sub-block of 32: 4 nibble lines, 1 bit line (bit 4)
constexpr std::size_t kLines = 320;
constexpr std::size_t kBlockBytes = 5 * 64;
constexpr std::size_t kTileBytes = kLines + 8 * kBlockBytes;

// Codes of sub-block b (32 weights).
void unpack(const BlockQ5_K& block, int b, std::uint8_t* q) {
  const std::uint8_t* qs = block.qs + 32 * (b / 2);
  const int shift = 4 * (b % 2);
  for (int k = 0; k < 32; ++k) {
    q[k] = static_cast<std::uint8_t>(((qs[k] >> shift) & 15) | ((block.qh[k] >> b) & 1) << 4);
  }
}

void pack(const std::byte* const rows[16], int n_valid, std::int64_t, std::uint8_t* tile) {
  std::memset(tile, 0, kTileBytes);
  auto* d = reinterpret_cast<std::uint16_t*>(tile);
  for (int r = 0; r < n_valid; ++r) {
    const auto& block = *reinterpret_cast<const BlockQ5_K*>(rows[r]);
    d[r] = block.d;
    d[16 + r] = block.dmin;
    pack_scale_mins(block.scales, r, tile);
  }
  for (int b = 0; b < 8; ++b) {
    Codes q{};
    for (int r = 0; r < n_valid; ++r) unpack(*reinterpret_cast<const BlockQ5_K*>(rows[r]), b, q[r]);
    std::uint8_t* lines = tile + kLines + static_cast<std::size_t>(b) * kBlockBytes;
    pack_nibbles(q, lines);
    pack_bits(q, 4, lines + 256);
  }
}

constexpr TileFormat kFormat{256, kTileBytes, pack};

}  // namespace

const TileFormat& tile_format_q5_k() { return kFormat; }

}  // namespace specdec
