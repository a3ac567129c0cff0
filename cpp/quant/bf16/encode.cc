#include "quant/encode.h"
#include "quant/codec.h"

namespace specdec {

void encode_bf16(const float* src, void* dst, std::int64_t n) {
  codec_bf16().quantize(src, dst, n);
}

}  // namespace specdec
