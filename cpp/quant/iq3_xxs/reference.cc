#include "quant/iq3_xxs/block.h"
#include "quant/read_codes.h"

namespace specdec {

const Codec& codec_iq3_xxs() noexcept { return kReadOnlyCodec<BlockIQ3_XXS>; }

}  // namespace specdec
