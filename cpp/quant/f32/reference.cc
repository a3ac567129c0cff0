// F32: weights as they are.
#include <cstdint>
#include <cstring>

#include "quant/codec.h"

namespace specdec {
namespace {

void dequantize(const void* src, float* dst, std::int64_t n) noexcept {
  if (n > 0) std::memcpy(dst, src, static_cast<std::size_t>(n) * sizeof(float));
}

void quantize(const float* src, void* dst, std::int64_t n) noexcept {
  if (n > 0) std::memcpy(dst, src, static_cast<std::size_t>(n) * sizeof(float));
}

constexpr Codec kCodec{dequantize, quantize};

}  // namespace

const Codec& codec_f32() noexcept { return kCodec; }

}  // namespace specdec
