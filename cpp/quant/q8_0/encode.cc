#include "quant/encode.h"
#include "quant/encode_block32.h"
#include "quant/q8_0/block.h"

namespace specdec {

void encode_q8_0(const float* src, void* dst, std::int64_t n) {
  using namespace search;
  constexpr Range kRange{-127, 127};
  auto* block = static_cast<BlockQ8_0*>(dst);
  for (std::int64_t i = 0; i < n / 32; ++i, ++block, src += 32) {
    const Group<32> group = load_group<32>(src, kSpread * rms_of(src, 32));
    block->d = f32_to_f16(search_scale(group, kRange, {-127.5F, -119.0F, 17}));
    std::uint8_t codes[32];
    store_codes(group, f16_to_f32(block->d), 0.0F, kRange, codes);
    for (int k = 0; k < 32; ++k) block->qs[k] = static_cast<std::int8_t>(codes[k] - 127);
  }
}

}  // namespace specdec
