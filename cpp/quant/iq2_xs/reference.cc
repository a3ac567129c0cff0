#include "quant/iq2_xs/block.h"
#include "quant/read_codes.h"

namespace specdec {

const Codec& codec_iq2_xs() noexcept { return kReadOnlyCodec<BlockIQ2_XS>; }

}  // namespace specdec
