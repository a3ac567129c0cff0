#include "quant/encode.h"
#include "quant/k_scales.h"
#include "quant/q5_k/block.h"
#include "quant/super_block.h"

namespace specdec {

void encode_q5_k(const float* src, void* dst, std::int64_t n) {
  using namespace search;
  constexpr Range kRange{0, 31};
  auto* block = static_cast<BlockQ5_K*>(dst);
  for (std::int64_t i_block = 0; i_block < n / 256; ++i_block, ++block, src += 256) {
    Group<32> groups[8];
    const float spread = kSpread * rms_of(src, 256);
    for (int g = 0; g < 8; ++g) groups[g] = load_group<32>(src + 32 * g, spread);
    const auto found = search_lines<8>(groups, kRange, 63, {0.86F, 1.04F, 12}, 2);
    block->d = f32_to_f16(found.d);
    block->dmin = f32_to_f16(found.dmin);
    std::memset(block->scales, 0, sizeof block->scales);
    std::uint8_t codes[256];
    for (int g = 0; g < 8; ++g) {
      store_scale_min({found.scale[g], found.min[g]}, g, block->scales);
      store_codes(groups[g], found.d * static_cast<float>(found.scale[g]),
                  -found.dmin * static_cast<float>(found.min[g]), kRange, codes + 32 * g);
    }
    for (int i = 0; i < 128; ++i) {
      const std::uint8_t* pair = codes + i / 32 * 64 + i % 32;
      block->qs[i] = static_cast<std::uint8_t>((pair[0] & 15) | (pair[32] & 15) << 4);
    }
    std::memset(block->qh, 0, sizeof block->qh);
    for (int i = 0; i < 256; ++i) {
      block->qh[i % 32] |= static_cast<std::uint8_t>((codes[i] >> 4) << (i / 32));
    }
  }
}

}  // namespace specdec
