#include "quant/q6_k/block.h"

#include "quant/codec.h"
#include "tensor/half.h"

namespace specdec {
namespace {

void dequantize(const void* src, float* dst, std::int64_t n) noexcept {
  const auto* block = static_cast<const BlockQ6_K*>(src);
  for (std::int64_t i_block = 0; i_block < n / 256; ++i_block, ++block, dst += 256) {
    const float d = f16_to_f32(block->d);
    for (int i = 0; i < 256; ++i) {
      const int half = i / 128;
      const int j = i / 32 % 4;
      const int low = (block->ql[64 * half + 32 * (j % 2) + i % 32] >> (4 * (j / 2))) & 15;
      const int high = (block->qh[32 * half + i % 32] >> (2 * j)) & 3;
      const float scale = d * static_cast<float>(block->scales[i / 16]);
      dst[i] = scale * static_cast<float>((low | high << 4) - 32);
    }
  }
}

constexpr Codec kCodec{dequantize, nullptr};

}  // namespace

const Codec& codec_q6_k() noexcept { return kCodec; }

}  // namespace specdec
