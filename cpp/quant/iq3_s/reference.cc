#include "quant/iq3_s/block.h"
#include "quant/read_codes.h"

namespace specdec {

const Codec& codec_iq3_s() noexcept { return kReadOnlyCodec<BlockIQ3_S>; }

}  // namespace specdec
