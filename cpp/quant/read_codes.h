// The codec of formats of 256 that are only read: what their codes and scales say.
#pragma once

#include "quant/codec.h"
#include "quant/codes.h"
#include "tensor/half.h"

namespace specdec {

template <class Block>
void dequantize_codes(const void* src, float* dst, std::int64_t n) noexcept {
  constexpr Codes kCodes = Block::kCodes;
  const auto* block = static_cast<const Block*>(src);
  for (std::int64_t i_block = 0; i_block < n / 256; ++i_block, ++block, dst += 256) {
    const float d = f16_to_f32(d_bits_of(*block)) / (1 << kCodes.d_shift);
    std::uint8_t q[256];
    for (int b = 0; b < 8; ++b) block->codes(b, q + 32 * b);
    for (int i = 0; i < 256; ++i) {
      const float scale = d * static_cast<float>(block->scale(i / kCodes.sub_block()));
      dst[i] = scale * static_cast<float>(kCodes.values[q[i]]);
    }
  }
}

template <class Block>
inline constexpr Codec kReadOnlyCodec{dequantize_codes<Block>, nullptr};

}  // namespace specdec
