#include <cstring>

#include "quant/tile_format.h"

namespace specdec {
namespace {

// Tile of one k: the weights of 16 rows side by side.
void pack(const std::byte* const rows[16], int n_valid, std::int64_t, std::uint8_t* tile) {
  std::memset(tile, 0, 16 * 4);
  for (int r = 0; r < n_valid; ++r) std::memcpy(tile + 4 * r, rows[r], 4);
}

constexpr TileFormat kFormat{1, 16 * 4, pack};

}  // namespace

const TileFormat& tile_format_f32() { return kFormat; }

}  // namespace specdec
