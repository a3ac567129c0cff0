#include "quant/codec.h"
#include "quant/iq4_nl/block.h"
#include "tensor/half.h"

namespace specdec {
namespace {

void dequantize(const void* src, float* dst, std::int64_t n) noexcept {
  const auto* block = static_cast<const BlockIQ4_NL*>(src);
  for (std::int64_t i_block = 0; i_block < n / 32; ++i_block, ++block, dst += 32) {
    const float d = f16_to_f32(block->d);
    for (int j = 0; j < 16; ++j) {
      dst[j] = d * static_cast<float>(kIq4Values[block->qs[j] & 15]);
      dst[j + 16] = d * static_cast<float>(kIq4Values[block->qs[j] >> 4]);
    }
  }
}

constexpr Codec kCodec{dequantize, nullptr};

}  // namespace

const Codec& codec_iq4_nl() noexcept { return kCodec; }

}  // namespace specdec
