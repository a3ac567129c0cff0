#include <cstring>

#include "quant/q8_0/block.h"
#include "quant/tile_format.h"

namespace specdec {
namespace {

// Tile of 2 blocks of 32: f16 d[2][16], then per block 8 lines of q + 128.
constexpr std::size_t kHeader = 64;
constexpr std::size_t kBlockBytes = 8 * 64;

void pack(const std::byte* const rows[16], int n_valid, std::int64_t n_weights,
          std::uint8_t* tile) {
  std::memset(tile, 0, kHeader + 2 * kBlockBytes);
  auto* scales = reinterpret_cast<std::uint16_t*>(tile);
  for (int b = 0; b < static_cast<int>(n_weights / 32); ++b) {
    Codes q{};
    for (int r = 0; r < n_valid; ++r) {
      const auto& block = reinterpret_cast<const BlockQ8_0*>(rows[r])[b];
      scales[16 * b + r] = block.d;
      for (int k = 0; k < 32; ++k) q[r][k] = static_cast<std::uint8_t>(block.qs[k]) ^ 0x80U;
    }
    pack_bytes(q, tile + kHeader + static_cast<std::size_t>(b) * kBlockBytes);
  }
}

constexpr TileFormat kFormat{64, kHeader + 2 * kBlockBytes, pack};

}  // namespace

const TileFormat& tile_format_q8_0() { return kFormat; }

}  // namespace specdec
