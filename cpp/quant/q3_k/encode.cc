#include "quant/encode.h"
#include "quant/q3_k/block.h"
#include "quant/super_block.h"

namespace specdec {

void encode_q3_k(const float* src, void* dst, std::int64_t n) {
  using namespace search;
  constexpr Range kRange{-4, 3};
  auto* block = static_cast<BlockQ3_K*>(dst);
  for (std::int64_t i_block = 0; i_block < n / 256; ++i_block, ++block, src += 256) {
    Group<16> groups[16];
    const float spread = kSpread * rms_of(src, 256);
    for (int g = 0; g < 16; ++g) groups[g] = load_group<16>(src + 16 * g, spread);
    const auto found = search_scales<16>(groups, kRange, 32, {-4.6F, -2.8F, 13}, 2);
    std::memset(block, 0, sizeof *block);
    block->d = f32_to_f16(found.d);
    std::uint8_t codes[256];
    for (int g = 0; g < 16; ++g) {
      const int scale = found.scale[g] + 32;
      block->scales[g % 8] |= static_cast<std::uint8_t>((scale & 15) << (4 * (g / 8)));
      block->scales[8 + g % 4] |= static_cast<std::uint8_t>((scale >> 4) << (2 * (g / 4)));
      store_codes(groups[g], found.d * static_cast<float>(found.scale[g]), 0.0F, kRange,
                  codes + 16 * g);
    }
    for (int i = 0; i < 256; ++i) {
      block->qs[i / 128 * 32 + i % 32] |=
          static_cast<std::uint8_t>((codes[i] & 3) << (2 * (i / 32 % 4)));
      block->hmask[i % 32] |= static_cast<std::uint8_t>((codes[i] >> 2) << (i / 32));
    }
  }
}

}  // namespace specdec
