#include "quant/iq1_s/block.h"
#include "quant/read_codes.h"

namespace specdec {

const Codec& codec_iq1_s() noexcept { return kReadOnlyCodec<BlockIQ1_S>; }

}  // namespace specdec
