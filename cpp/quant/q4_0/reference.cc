#include "quant/q4_0/block.h"

#include <cmath>

#include "quant/codec.h"
#include "quant/round.h"
#include "tensor/half.h"

namespace specdec {
namespace {

void dequantize(const void* src, float* dst, std::int64_t n) noexcept {
  const auto* block = static_cast<const BlockQ4_0*>(src);
  for (std::int64_t i_block = 0; i_block < n / 32; ++i_block, ++block, dst += 32) {
    const float d = f16_to_f32(block->d);
    for (int j = 0; j < 16; ++j) {
      dst[j] = d * static_cast<float>((block->qs[j] & 15) - 8);
      dst[j + 16] = d * static_cast<float>((block->qs[j] >> 4) - 8);
    }
  }
}

void quantize(const float* src, void* dst, std::int64_t n) noexcept {
  auto* block = static_cast<BlockQ4_0*>(dst);
  for (std::int64_t i_block = 0; i_block < n / 32; ++i_block, ++block, src += 32) {
    // The value of largest magnitude, sign included, maps to 0: its side of the range has one more
    // code.
    float extreme = src[0];
    for (int j = 1; j < 32; ++j) {
      if (std::fabs(src[j]) > std::fabs(extreme)) extreme = src[j];
    }
    const float d = extreme / -8.0F;
    const float inverse = d == 0.0F ? 0.0F : 1.0F / d;
    block->d = f32_to_f16(d);
    for (int j = 0; j < 16; ++j) {
      const int low = quantize_code(src[j] * inverse + 8.5F, 15);
      const int high = quantize_code(src[j + 16] * inverse + 8.5F, 15);
      block->qs[j] = static_cast<std::uint8_t>(low | high << 4);
    }
  }
}

constexpr Codec kCodec{dequantize, quantize};

}  // namespace

const Codec& codec_q4_0() noexcept { return kCodec; }

}  // namespace specdec
