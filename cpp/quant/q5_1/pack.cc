#include <cstring>

#include "quant/q5_1/block.h"
#include "quant/tile_format.h"

namespace specdec {
namespace {

// Tile of 2 blocks of 32:
//   f16 d[2][16], f16 m[2][16], then per block of 32: 4 nibble lines, 1 bit line (bit 4)
constexpr std::size_t kHeader = 128;
constexpr std::size_t kBlockBytes = 5 * 64;

void unpack(const BlockQ5_1& block, std::uint8_t* q) {
  std::uint32_t high;
  std::memcpy(&high, block.qh, 4);
  for (int k = 0; k < 16; ++k) {
    const std::uint8_t byte = block.qs[k];
    q[k] = static_cast<std::uint8_t>((byte & 15) | ((high >> k) & 1) << 4);
    q[k + 16] = static_cast<std::uint8_t>(byte >> 4 | ((high >> (k + 16)) & 1) << 4);
  }
}

void pack(const std::byte* const rows[16], int n_valid, std::int64_t n_weights,
          std::uint8_t* tile) {
  std::memset(tile, 0, kHeader + 2 * kBlockBytes);
  auto* scales = reinterpret_cast<std::uint16_t*>(tile);
  for (int b = 0; b < static_cast<int>(n_weights / 32); ++b) {
    Codes q{};
    for (int r = 0; r < n_valid; ++r) {
      const auto& block = reinterpret_cast<const BlockQ5_1*>(rows[r])[b];
      scales[16 * b + r] = block.d;
      scales[32 + 16 * b + r] = block.m;
      unpack(block, q[r]);
    }
    std::uint8_t* lines = tile + kHeader + static_cast<std::size_t>(b) * kBlockBytes;
    pack_nibbles(q, lines);
    pack_bits(q, 4, lines + 256);
  }
}

constexpr TileFormat kFormat{64, kHeader + 2 * kBlockBytes, pack};

}  // namespace

const TileFormat& tile_format_q5_1() { return kFormat; }

}  // namespace specdec
