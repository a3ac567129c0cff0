#include "quant/encode.h"
#include "quant/encode_k_lines.h"
#include "quant/q5_k/block.h"

namespace specdec {

void encode_q5_k(const float* src, void* dst, std::int64_t n) {
  search::encode_k_lines<BlockQ5_K>(src, dst, n, {0, 31}, {0.86F, 1.04F, 12});
}

}  // namespace specdec
