#include "quant/iq2_xxs/block.h"
#include "quant/read_codes.h"

namespace specdec {

const Codec& codec_iq2_xxs() noexcept { return kReadOnlyCodec<BlockIQ2_XXS>; }

}  // namespace specdec
