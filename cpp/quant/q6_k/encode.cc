#include "quant/encode.h"
#include "quant/q6_k/block.h"
#include "quant/super_block.h"

namespace specdec {

void encode_q6_k(const float* src, void* dst, std::int64_t n) {
  using namespace search;
  constexpr Range kRange{-32, 31};
  auto* block = static_cast<BlockQ6_K*>(dst);
  for (std::int64_t i_block = 0; i_block < n / 256; ++i_block, ++block, src += 256) {
    Group<16> groups[16];
    const float spread = kSpread * rms_of(src, 256);
    for (int g = 0; g < 16; ++g) groups[g] = load_group<16>(src + 16 * g, spread);
    const auto found = search_scales<16>(groups, kRange, 128, {-33.0F, -29.0F, 9}, 3);
    block->d = f32_to_f16(found.d);
    std::uint8_t codes[256];
    for (int g = 0; g < 16; ++g) {
      block->scales[g] = static_cast<std::int8_t>(found.scale[g]);
      store_codes(groups[g], found.d * static_cast<float>(found.scale[g]), 0.0F, kRange,
                  codes + 16 * g);
    }
    std::memset(block->ql, 0, sizeof block->ql);
    std::memset(block->qh, 0, sizeof block->qh);
    for (int i = 0; i < 256; ++i) {
      const int half = i / 128;
      const int j = i / 32 % 4;
      block->ql[64 * half + 32 * (j % 2) + i % 32] |=
          static_cast<std::uint8_t>((codes[i] & 15) << (4 * (j / 2)));
      block->qh[32 * half + i % 32] |= static_cast<std::uint8_t>((codes[i] >> 4) << (2 * j));
    }
  }
}

}  // namespace specdec
