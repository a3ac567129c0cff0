#include "quant/tile_format.h"

#include <cstring>

#include "base/error.h"

namespace specdec {
namespace {

// Four neighbouring codes as one word.
std::uint32_t word(const std::uint8_t* codes) {
  std::uint32_t out;
  std::memcpy(&out, codes, 4);
  return out;
}

void put(std::uint8_t* lines, int line, int row, std::uint32_t value) {
  std::memcpy(lines + line * 64 + row * 4, &value, 4);
}

}  // namespace

void pack_nibbles(const Codes& q, std::uint8_t* lines) {
  for (int j = 0; j < 4; ++j) {
    for (int r = 0; r < 16; ++r) {
      const std::uint32_t low = word(q[r] + 8 * j) & 0x0F0F0F0FU;
      const std::uint32_t high = word(q[r] + 8 * j + 4) & 0x0F0F0F0FU;
      put(lines, j, r, low | high << 4);
    }
  }
}

void pack_two_bits(const Codes& q, int shift, std::uint8_t* lines) {
  for (int j = 0; j < 2; ++j) {
    for (int r = 0; r < 16; ++r) {
      std::uint32_t out = 0;
      for (int u = 0; u < 4; ++u)
        out |= ((word(q[r] + 16 * j + 4 * u) >> shift) & 0x03030303U) << (2 * u);
      put(lines, j, r, out);
    }
  }
}

void pack_bits(const Codes& q, int shift, std::uint8_t* line) {
  for (int r = 0; r < 16; ++r) {
    std::uint32_t out = 0;
    for (int v = 0; v < 8; ++v) out |= ((word(q[r] + 4 * v) >> shift) & 0x01010101U) << v;
    put(line, 0, r, out);
  }
}

void pack_bytes(const Codes& q, std::uint8_t* lines) {
  for (int v = 0; v < 8; ++v) {
    for (int r = 0; r < 16; ++r) put(lines, v, r, word(q[r] + 4 * v));
  }
}

#define SPECDEC_DECLARE_TILE(name) const TileFormat& tile_format_##name();
#define SPECDEC_PLAIN_TYPE(dtype, name) SPECDEC_DECLARE_TILE(name)
#define SPECDEC_QUANT_TYPE(dtype, name, block) SPECDEC_DECLARE_TILE(name)
#include "quant/registry.def"

const TileFormat& tile_format(DType dtype) {
  switch (dtype) {
#define SPECDEC_PLAIN_TYPE(id, name) \
  case DType::id:                    \
    return tile_format_##name();
#define SPECDEC_QUANT_TYPE(id, name, block) SPECDEC_PLAIN_TYPE(id, name)
#include "quant/registry.def"
  }
  throw_internal("known dtype", __FILE__, __LINE__);
}

}  // namespace specdec
