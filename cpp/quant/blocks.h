// The block structs of all formats.
#pragma once

#include "quant/iq1_m/block.h"
#include "quant/iq1_s/block.h"
#include "quant/iq2_s/block.h"
#include "quant/iq2_xs/block.h"
#include "quant/iq2_xxs/block.h"
#include "quant/iq3_s/block.h"
#include "quant/iq3_xxs/block.h"
#include "quant/iq4_nl/block.h"
#include "quant/iq4_xs/block.h"
#include "quant/mxfp4/block.h"
#include "quant/q2_k/block.h"
#include "quant/q3_k/block.h"
#include "quant/q4_0/block.h"
#include "quant/q4_1/block.h"
#include "quant/q4_k/block.h"
#include "quant/q5_0/block.h"
#include "quant/q5_1/block.h"
#include "quant/q5_k/block.h"
#include "quant/q6_k/block.h"
#include "quant/q8_0/block.h"

namespace specdec {

#define SPECDEC_BLOCK(name, folder, id, elements, bytes, ...) \
  static_assert(sizeof(Block##name) == bytes);
#include "tensor/formats.def"

}  // namespace specdec
