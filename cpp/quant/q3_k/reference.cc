#include "quant/q3_k/block.h"

#include "quant/codec.h"
#include "tensor/half.h"

namespace specdec {
namespace {

void dequantize(const void* src, float* dst, std::int64_t n) noexcept {
  const auto* block = static_cast<const BlockQ3_K*>(src);
  for (std::int64_t i_block = 0; i_block < n / 256; ++i_block, ++block, dst += 256) {
    const float d = f16_to_f32(block->d);
    for (int i = 0; i < 256; ++i) {
      const int s = i / 16;
      const int scale_low = (block->scales[s % 8] >> (4 * (s / 8))) & 15;
      const int scale_high = (block->scales[8 + s % 4] >> (2 * (s / 4))) & 3;
      const float scale = d * static_cast<float>((scale_low | scale_high << 4) - 32);
      const int low = (block->qs[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4))) & 3;
      const int high = (block->hmask[i % 32] >> (i / 32)) & 1;
      dst[i] = scale * static_cast<float>((low | high << 2) - 4);
    }
  }
}

constexpr Codec kCodec{dequantize, nullptr};

}  // namespace

const Codec& codec_q3_k() noexcept { return kCodec; }

}  // namespace specdec
