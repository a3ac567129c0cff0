#include <cstring>

#include "quant/q3_k/block.h"
#include "quant/tile_format.h"

namespace specdec {
namespace {

// Tile of 256 k: f16 d[16] and 32 bytes unused; i8 scale[16][16];
//   per 32: 2 two-bit lines (bits 0 and 1), 1 bit line (bit 2)
constexpr std::size_t kLines = 320;
constexpr std::size_t kBlockBytes = 3 * 64;
constexpr std::size_t kTileBytes = kLines + 8 * kBlockBytes;

// Codes of sub-block b (32 weights).
void unpack(const BlockQ3_K& block, int b, std::uint8_t* q) {
  const std::uint8_t* qs = block.qs + 32 * (b / 4);
  const int shift = 2 * (b % 4);
  for (int k = 0; k < 32; ++k) {
    q[k] = static_cast<std::uint8_t>(((qs[k] >> shift) & 3) | ((block.hmask[k] >> b) & 1) << 2);
  }
}

void pack(const std::byte* const rows[16], int n_valid, std::int64_t, std::uint8_t* tile) {
  std::memset(tile, 0, kTileBytes);
  auto* d = reinterpret_cast<std::uint16_t*>(tile);
  for (int r = 0; r < n_valid; ++r) {
    const auto& block = *reinterpret_cast<const BlockQ3_K*>(rows[r]);
    d[r] = block.d;
    for (int s = 0; s < 16; ++s) {
      const int low = (block.scales[s % 8] >> (4 * (s / 8))) & 15;
      const int high = (block.scales[8 + s % 4] >> (2 * (s / 4))) & 3;
      tile[64 + 16 * s + r] = static_cast<std::uint8_t>((low | high << 4) - 32);
    }
  }
  for (int b = 0; b < 8; ++b) {
    Codes q{};
    for (int r = 0; r < n_valid; ++r) unpack(*reinterpret_cast<const BlockQ3_K*>(rows[r]), b, q[r]);
    std::uint8_t* lines = tile + kLines + static_cast<std::size_t>(b) * kBlockBytes;
    pack_two_bits(q, 0, lines);
    pack_bits(q, 2, lines + 128);
  }
}

constexpr TileFormat kFormat{256, kTileBytes, pack};

}  // namespace

const TileFormat& tile_format_q3_k() { return kFormat; }

}  // namespace specdec
