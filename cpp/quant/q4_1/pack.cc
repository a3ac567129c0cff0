#include "quant/pack_blocks.h"
#include "quant/q4_1/block.h"

namespace specdec {

const TileFormat& tile_format_q4_1() { return kPackedFormat<BlockQ4_1>; }

}  // namespace specdec
