#include "quant/encode.h"
#include "quant/q2_k/block.h"
#include "quant/super_block.h"

namespace specdec {

void encode_q2_k(const float* src, void* dst, std::int64_t n) {
  using namespace search;
  constexpr Range kRange{0, 3};
  auto* block = static_cast<BlockQ2_K*>(dst);
  for (std::int64_t i_block = 0; i_block < n / 256; ++i_block, ++block, src += 256) {
    Group<16> groups[16];
    const float spread = kSpread * rms_of(src, 256);
    for (int g = 0; g < 16; ++g) groups[g] = load_group<16>(src + 16 * g, spread);
    const auto found = search_lines<16>(groups, kRange, 15, {0.5F, 1.0F, 12}, 1);
    std::memset(block->qs, 0, sizeof block->qs);
    block->d = f32_to_f16(found.d);
    block->dmin = f32_to_f16(found.dmin);
    std::uint8_t codes[256];
    for (int g = 0; g < 16; ++g) {
      block->scales[g] = static_cast<std::uint8_t>(found.scale[g] | found.min[g] << 4);
      store_codes(groups[g], found.d * static_cast<float>(found.scale[g]),
                  -found.dmin * static_cast<float>(found.min[g]), kRange, codes + 16 * g);
    }
    for (int i = 0; i < 256; ++i) {
      block->qs[i / 128 * 32 + i % 32] |= static_cast<std::uint8_t>(codes[i] << (2 * (i / 32 % 4)));
    }
  }
}

}  // namespace specdec
