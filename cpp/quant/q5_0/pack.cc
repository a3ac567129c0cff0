#include "quant/pack_blocks.h"
#include "quant/q5_0/block.h"

namespace specdec {

const TileFormat& tile_format_q5_0() { return kPackedFormat<BlockQ5_0>; }

}  // namespace specdec
