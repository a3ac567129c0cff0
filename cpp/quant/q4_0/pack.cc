#include "quant/pack_blocks.h"
#include "quant/q4_0/block.h"

namespace specdec {

const TileFormat& tile_format_q4_0() { return kPackedFormat<BlockQ4_0>; }

}  // namespace specdec
