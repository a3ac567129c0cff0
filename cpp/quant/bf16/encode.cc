#include "quant/codec.h"
#include "quant/encode.h"

namespace specdec {

void encode_bf16(const float* src, void* dst, std::int64_t n) { codec_bf16().quantize(src, dst, n); }

}  // namespace specdec
