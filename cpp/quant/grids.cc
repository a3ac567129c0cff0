#include "quant/grids.h"

namespace specdec {

#include "quant/grids.inc"

}  // namespace specdec
