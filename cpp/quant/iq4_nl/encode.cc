#include "quant/encode.h"
#include "quant/iq4_nl/block.h"
#include "quant/search_values.h"

namespace specdec {

void encode_iq4_nl(const float* src, void* dst, std::int64_t n) {
  using namespace search;
  auto* block = static_cast<BlockIQ4_NL*>(dst);
  for (std::int64_t i = 0; i < n / 32; ++i, ++block, src += 32) {
    const float spread = kSpread * rms_of(src, 32);
    float d = block_scale(search_value_scale(src, 32, spread, kIq4Values));
    // No value is zero: where half precision has no small scales, none may be better.
    if (!(value_error(src, 32, spread, d, kIq4Values) <
          value_error(src, 32, spread, 0.0F, kIq4Values)))
      d = 0;
    block->d = f32_to_f16(d);
    const float inverse = inverse_of(f16_to_f32(block->d));
    for (int k = 0; k < 16; ++k) {
      const int low = nearest_value(src[k] * inverse, kIq4Values);
      const int high = nearest_value(src[k + 16] * inverse, kIq4Values);
      block->qs[k] = static_cast<std::uint8_t>(low | high << 4);
    }
  }
}

}  // namespace specdec
