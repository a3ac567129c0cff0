#include "quant/encode.h"
#include "quant/encode_k_lines.h"
#include "quant/q4_k/block.h"

namespace specdec {

void encode_q4_k(const float* src, void* dst, std::int64_t n) {
  search::encode_k_lines<BlockQ4_K>(src, dst, n, {0, 15}, {0.75F, 1.04F, 12});
}

}  // namespace specdec
