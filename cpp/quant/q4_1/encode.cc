#include "quant/encode.h"
#include "quant/encode_block32.h"
#include "quant/q4_1/block.h"

namespace specdec {

void encode_q4_1(const float* src, void* dst, std::int64_t n) {
  search::encode_lines<BlockQ4_1>(src, dst, n, {0, 15}, {0.8F, 1.05F, 16});
}

}  // namespace specdec
