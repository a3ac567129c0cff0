#include "quant/q2_k/block.h"

#include "quant/codec.h"
#include "tensor/half.h"

namespace specdec {
namespace {

void dequantize(const void* src, float* dst, std::int64_t n) noexcept {
  const auto* block = static_cast<const BlockQ2_K*>(src);
  for (std::int64_t i_block = 0; i_block < n / 256; ++i_block, ++block, dst += 256) {
    const float d = f16_to_f32(block->d);
    const float dmin = f16_to_f32(block->dmin);
    for (int i = 0; i < 256; ++i) {
      const std::uint8_t packed = block->scales[i / 16];
      const float scale = d * static_cast<float>(packed & 15);
      const float min = dmin * static_cast<float>(packed >> 4);
      const int q = (block->qs[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4))) & 3;
      dst[i] = scale * static_cast<float>(q) - min;
    }
  }
}

constexpr Codec kCodec{dequantize, nullptr};

}  // namespace

const Codec& codec_q2_k() noexcept { return kCodec; }

}  // namespace specdec
