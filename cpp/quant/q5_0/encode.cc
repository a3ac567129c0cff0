#include "quant/encode.h"
#include "quant/encode_block32.h"
#include "quant/q5_0/block.h"

namespace specdec {

void encode_q5_0(const float* src, void* dst, std::int64_t n) {
  search::encode_scaled<BlockQ5_0>(src, dst, n, {-16, 15}, {-17.0F, -13.8F, 17});
}

}  // namespace specdec
