#include "quant/pack_blocks.h"
#include "quant/q5_1/block.h"

namespace specdec {

const TileFormat& tile_format_q5_1() { return kPackedFormat<BlockQ5_1>; }

}  // namespace specdec
