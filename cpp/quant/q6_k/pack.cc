#include <cstring>

#include "quant/q6_k/block.h"
#include "quant/tile_format.h"

namespace specdec {
namespace {

// Tile of 256 k: f16 d[16] and 32 bytes unused; i8 scale[16][16];
//   per 32: 4 nibble lines, 2 two-bit lines (bits 4 and 5)
constexpr std::size_t kLines = 320;
constexpr std::size_t kBlockBytes = 6 * 64;
constexpr std::size_t kTileBytes = kLines + 8 * kBlockBytes;

// Codes of sub-block b (32 weights).
void unpack(const BlockQ6_K& block, int b, std::uint8_t* q) {
  const std::uint8_t* ql = block.ql + 64 * (b / 4) + 32 * (b % 2);
  const std::uint8_t* qh = block.qh + 32 * (b / 4);
  const int low = 4 * (b / 2 % 2);
  const int high = 2 * (b % 4);
  for (int k = 0; k < 32; ++k) {
    q[k] = static_cast<std::uint8_t>(((ql[k] >> low) & 15) | ((qh[k] >> high) & 3) << 4);
  }
}

void pack(const std::byte* const rows[16], int n_valid, std::int64_t, std::uint8_t* tile) {
  std::memset(tile, 0, kTileBytes);
  auto* d = reinterpret_cast<std::uint16_t*>(tile);
  for (int r = 0; r < n_valid; ++r) {
    const auto& block = *reinterpret_cast<const BlockQ6_K*>(rows[r]);
    d[r] = block.d;
    for (int s = 0; s < 16; ++s) tile[64 + 16 * s + r] = static_cast<std::uint8_t>(block.scales[s]);
  }
  for (int b = 0; b < 8; ++b) {
    Codes q{};
    for (int r = 0; r < n_valid; ++r) unpack(*reinterpret_cast<const BlockQ6_K*>(rows[r]), b, q[r]);
    std::uint8_t* lines = tile + kLines + static_cast<std::size_t>(b) * kBlockBytes;
    pack_nibbles(q, lines);
    pack_two_bits(q, 4, lines + 256);
  }
}

constexpr TileFormat kFormat{256, kTileBytes, pack};

}  // namespace

const TileFormat& tile_format_q6_k() { return kFormat; }

}  // namespace specdec
