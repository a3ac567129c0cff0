#include "quant/encode.h"
#include "quant/codec.h"

namespace specdec {

void encode_f32(const float* src, void* dst, std::int64_t n) { codec_f32().quantize(src, dst, n); }

}  // namespace specdec
