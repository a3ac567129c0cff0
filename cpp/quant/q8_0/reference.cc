#include "quant/q8_0/block.h"

#include <algorithm>
#include <cmath>

#include "quant/codec.h"
#include "tensor/half.h"

namespace specdec {
namespace {

void dequantize(const void* src, float* dst, std::int64_t n) noexcept {
  const auto* block = static_cast<const BlockQ8_0*>(src);
  for (std::int64_t i_block = 0; i_block < n / 32; ++i_block, ++block, dst += 32) {
    const float d = f16_to_f32(block->d);
    for (int j = 0; j < 32; ++j) dst[j] = d * static_cast<float>(block->qs[j]);
  }
}

void quantize(const float* src, void* dst, std::int64_t n) noexcept {
  auto* block = static_cast<BlockQ8_0*>(dst);
  for (std::int64_t i_block = 0; i_block < n / 32; ++i_block, ++block, src += 32) {
    float largest = 0.0F;
    for (int j = 0; j < 32; ++j) largest = std::max(largest, std::fabs(src[j]));
    const float d = largest / 127.0F;
    const float inverse = d == 0.0F ? 0.0F : 1.0F / d;
    block->d = f32_to_f16(d);
    for (int j = 0; j < 32; ++j) {
      const float magnitude = std::fabs(src[j] * inverse);
      // Half away from zero, in an order that never rounds 0.49999997 up; NaN and overflow become
      // 127.
      const float whole = std::floor(magnitude);
      const float rounded = whole + std::floor(2.0F * (magnitude - whole));
      const int q = rounded < 127.0F ? static_cast<int>(rounded) : 127;
      block->qs[j] = static_cast<std::int8_t>(std::signbit(src[j] * inverse) ? -q : q);
    }
  }
}

constexpr Codec kCodec{dequantize, quantize};

}  // namespace

const Codec& codec_q8_0() noexcept { return kCodec; }

}  // namespace specdec
