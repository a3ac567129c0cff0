// BF16: one 16-bit value per weight.
#include <cstdint>
#include <cstring>

#include "quant/codec.h"
#include "tensor/half.h"

namespace specdec {
namespace {

void dequantize(const void* src, float* dst, std::int64_t n) noexcept {
  const auto* bytes = static_cast<const std::uint8_t*>(src);
  for (std::int64_t i = 0; i < n; ++i) {
    std::uint16_t half = 0;
    std::memcpy(&half, bytes + 2 * i, sizeof half);
    dst[i] = bf16_to_f32(half);
  }
}

void quantize(const float* src, void* dst, std::int64_t n) noexcept {
  auto* bytes = static_cast<std::uint8_t*>(dst);
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint16_t half = f32_to_bf16(src[i]);
    std::memcpy(bytes + 2 * i, &half, sizeof half);
  }
}

constexpr Codec kCodec{dequantize, quantize};

}  // namespace

const Codec& codec_bf16() noexcept { return kCodec; }

}  // namespace specdec
