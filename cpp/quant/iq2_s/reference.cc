#include "quant/iq2_s/block.h"
#include "quant/read_codes.h"

namespace specdec {

const Codec& codec_iq2_s() noexcept { return kReadOnlyCodec<BlockIQ2_S>; }

}  // namespace specdec
