#include "quant/encode.h"
#include "quant/encode_block32.h"
#include "quant/q4_0/block.h"

namespace specdec {

// The weight of largest magnitude keeps its value: scales with a smaller squared error shrink it,
// and with only 16 codes that costs more perplexity than it saves (docs/quantize.md).
void encode_q4_0(const float* src, void* dst, std::int64_t n) {
  using namespace search;
  constexpr Range kRange{-8, 7};
  auto* block = static_cast<BlockQ4_0*>(dst);
  for (std::int64_t i = 0; i < n / 32; ++i, ++block, src += 32) {
    const Group<32> group = load_group<32>(src, kSpread * rms_of(src, 32));
    const float extreme = -group.low > group.high ? group.low : group.high;
    block->d = f32_to_f16(extreme / kRange.low);
    std::uint8_t codes[32];
    store_codes(group, f16_to_f32(block->d), 0.0F, kRange, codes);
    store_nibbles(codes, block);
  }
}

}  // namespace specdec
