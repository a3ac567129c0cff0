#include "quant/codec.h"
#include "quant/iq4_xs/block.h"
#include "tensor/half.h"

namespace specdec {
namespace {

void dequantize(const void* src, float* dst, std::int64_t n) noexcept {
  const auto* block = static_cast<const BlockIQ4_XS*>(src);
  for (std::int64_t i_block = 0; i_block < n / 256; ++i_block, ++block, dst += 256) {
    const float d = f16_to_f32(block->d);
    for (int i = 0; i < 256; ++i) {
      const int s = i / 32;
      const int low = (block->scales_l[s / 2] >> (4 * (s % 2))) & 15;
      const int high = (block->scales_h >> (2 * s)) & 3;
      const float scale = d * static_cast<float>((low | high << 4) - 32);
      const int q = (block->qs[16 * s + i % 16] >> (4 * (i % 32 / 16))) & 15;
      dst[i] = scale * static_cast<float>(kIq4Values[q]);
    }
  }
}

constexpr Codec kCodec{dequantize, nullptr};

}  // namespace

const Codec& codec_iq4_xs() noexcept { return kCodec; }

}  // namespace specdec
