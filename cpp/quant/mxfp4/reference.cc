#include "quant/codec.h"
#include "quant/mxfp4/round.h"
#include "tensor/half.h"

namespace specdec {
namespace {

void dequantize(const void* src, float* dst, std::int64_t n) noexcept {
  const auto* block = static_cast<const BlockMXFP4*>(src);
  for (std::int64_t i_block = 0; i_block < n / 32; ++i_block, ++block, dst += 32) {
    const float d = bf16_to_f32(block->d_bits());
    for (int j = 0; j < 16; ++j) {
      dst[j] = d * static_cast<float>(kE2m1Values[block->qs[j] & 15]);
      dst[j + 16] = d * static_cast<float>(kE2m1Values[block->qs[j] >> 4]);
    }
  }
}

void quantize(const float* src, void* dst, std::int64_t n) noexcept {
  auto* block = static_cast<BlockMXFP4*>(dst);
  for (std::int64_t i_block = 0; i_block < n / 32; ++i_block, ++block, src += 32) {
    store_mxfp4(src, mxfp4_exponent(src), block);
  }
}

constexpr Codec kCodec{dequantize, quantize};

}  // namespace

const Codec& codec_mxfp4() noexcept { return kCodec; }

}  // namespace specdec
