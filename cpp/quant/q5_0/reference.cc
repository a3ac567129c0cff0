#include "quant/q5_0/block.h"

#include <cmath>
#include <cstring>

#include "quant/codec.h"
#include "quant/round.h"
#include "tensor/half.h"

namespace specdec {
namespace {

void dequantize(const void* src, float* dst, std::int64_t n) noexcept {
  const auto* block = static_cast<const BlockQ5_0*>(src);
  for (std::int64_t i_block = 0; i_block < n / 32; ++i_block, ++block, dst += 32) {
    const float d = f16_to_f32(block->d);
    for (int j = 0; j < 32; ++j) {
      const int low = (block->qs[j % 16] >> (4 * (j / 16))) & 15;
      const int high = (block->qh[j / 8] >> (j % 8)) & 1;
      dst[j] = d * static_cast<float>((low | high << 4) - 16);
    }
  }
}

void quantize(const float* src, void* dst, std::int64_t n) noexcept {
  auto* block = static_cast<BlockQ5_0*>(dst);
  for (std::int64_t i_block = 0; i_block < n / 32; ++i_block, ++block, src += 32) {
    // The value of largest magnitude, sign included, maps to 0: its side of the range has one more
    // code.
    float extreme = src[0];
    for (int j = 1; j < 32; ++j) {
      if (std::fabs(src[j]) > std::fabs(extreme)) extreme = src[j];
    }
    const float d = extreme / -16.0F;
    const float inverse = d == 0.0F ? 0.0F : 1.0F / d;
    block->d = f32_to_f16(d);
    std::memset(block->qh, 0, sizeof block->qh);
    std::memset(block->qs, 0, sizeof block->qs);
    for (int j = 0; j < 32; ++j) {
      const int q = quantize_code(src[j] * inverse + 16.5F, 31);
      block->qs[j % 16] |= static_cast<std::uint8_t>((q & 15) << (4 * (j / 16)));
      block->qh[j / 8] |= static_cast<std::uint8_t>((q >> 4) << (j % 8));
    }
  }
}

constexpr Codec kCodec{dequantize, quantize};

}  // namespace

const Codec& codec_q5_0() noexcept { return kCodec; }

}  // namespace specdec
