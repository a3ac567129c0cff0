#include "quant/encode.h"
#include "quant/encode_block32.h"
#include "quant/q4_0/block.h"

namespace specdec {

void encode_q4_0(const float* src, void* dst, std::int64_t n) {
  search::encode_scaled<BlockQ4_0>(src, dst, n, {-8, 7}, {-9.0F, -6.6F, 17});
}

}  // namespace specdec
