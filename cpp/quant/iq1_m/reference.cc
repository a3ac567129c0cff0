#include "quant/iq1_m/block.h"
#include "quant/read_codes.h"

namespace specdec {

const Codec& codec_iq1_m() noexcept { return kReadOnlyCodec<BlockIQ1_M>; }

}  // namespace specdec
