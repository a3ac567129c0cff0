#include "quant/encode.h"
#include "quant/encode_block32.h"
#include "quant/q5_1/block.h"

namespace specdec {

void encode_q5_1(const float* src, void* dst, std::int64_t n) {
  search::encode_lines<BlockQ5_1>(src, dst, n, {0, 31}, {0.88F, 1.06F, 16});
}

}  // namespace specdec
