#include "quant/encode.h"
#include "quant/codec.h"
#include "quant/mxfp4/round.h"

namespace specdec {
namespace {

float squared_error(const float* x, const BlockMXFP4& block) {
  float back[32];
  codec_mxfp4().dequantize(&block, back, 32);
  float sum = 0;
  for (int i = 0; i < 32; ++i) sum += (x[i] - back[i]) * (x[i] - back[i]);
  return sum;
}

}  // namespace

// The power of two of the smallest squared error: a lower one cuts off the largest weights, which
// pays when the others are small.
void encode_mxfp4(const float* src, void* dst, std::int64_t n) {
  auto* block = static_cast<BlockMXFP4*>(dst);
  for (std::int64_t i = 0; i < n / 32; ++i, ++block, src += 32) {
    const int middle = mxfp4_exponent(src);
    store_mxfp4(src, middle, block);
    float best = squared_error(src, *block);
    for (const int e : {middle - 1, middle + 1}) {
      if (e < 0 || e > 254) continue;
      BlockMXFP4 other;
      store_mxfp4(src, e, &other);
      const float error = squared_error(src, other);
      if (!(error < best)) continue;
      best = error;
      *block = other;
    }
  }
}

}  // namespace specdec
