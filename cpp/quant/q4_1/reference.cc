#include "quant/q4_1/block.h"

#include <algorithm>

#include "quant/codec.h"
#include "quant/round.h"
#include "tensor/half.h"

namespace specdec {
namespace {

void dequantize(const void* src, float* dst, std::int64_t n) noexcept {
  const auto* block = static_cast<const BlockQ4_1*>(src);
  for (std::int64_t i_block = 0; i_block < n / 32; ++i_block, ++block, dst += 32) {
    const float d = f16_to_f32(block->d);
    const float m = f16_to_f32(block->m);
    for (int j = 0; j < 16; ++j) {
      dst[j] = d * static_cast<float>(block->qs[j] & 15) + m;
      dst[j + 16] = d * static_cast<float>(block->qs[j] >> 4) + m;
    }
  }
}

void quantize(const float* src, void* dst, std::int64_t n) noexcept {
  auto* block = static_cast<BlockQ4_1*>(dst);
  for (std::int64_t i_block = 0; i_block < n / 32; ++i_block, ++block, src += 32) {
    float max = src[0];
    float min = src[0];
    for (int j = 1; j < 32; ++j) {
      max = std::max(max, src[j]);
      min = std::min(min, src[j]);
    }
    const float d = (max - min) / 15.0F;
    const float inverse = d == 0.0F ? 0.0F : 1.0F / d;
    block->d = f32_to_f16(d);
    block->m = f32_to_f16(min);
    for (int j = 0; j < 16; ++j) {
      const int low = quantize_code((src[j] - min) * inverse + 0.5F, 15);
      const int high = quantize_code((src[j + 16] - min) * inverse + 0.5F, 15);
      block->qs[j] = static_cast<std::uint8_t>(low | high << 4);
    }
  }
}

constexpr Codec kCodec{dequantize, quantize};

}  // namespace

const Codec& codec_q4_1() noexcept { return kCodec; }

}  // namespace specdec
