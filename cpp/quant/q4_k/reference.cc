#include "quant/q4_k/block.h"

#include "quant/codec.h"
#include "quant/k_scales.h"
#include "tensor/half.h"

namespace specdec {
namespace {

void dequantize(const void* src, float* dst, std::int64_t n) noexcept {
  const auto* block = static_cast<const BlockQ4_K*>(src);
  for (std::int64_t i_block = 0; i_block < n / 256; ++i_block, ++block, dst += 256) {
    const float d = f16_to_f32(block->d);
    const float dmin = f16_to_f32(block->dmin);
    for (int i = 0; i < 256; ++i) {
      const auto [scale, min] = unpack_scale_min(block->scales, i / 32);
      const int q = (block->qs[i / 64 * 32 + i % 32] >> (4 * (i / 32 % 2))) & 15;
      dst[i] =
          d * static_cast<float>(scale) * static_cast<float>(q) - dmin * static_cast<float>(min);
    }
  }
}

constexpr Codec kCodec{dequantize, nullptr};

}  // namespace

const Codec& codec_q4_k() noexcept { return kCodec; }

}  // namespace specdec
