#include <cstddef>
#include <cstdint>
#include <utility>

#include "backend/cpu/pack_isa.h"
#include "backend/cpu/target.h"
#include "quant/pack_blocks.h"
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

#define SPECDEC_ISA avx512

SPECDEC_TARGET_AVX512_BEGIN
#include "backend/cpu/unroll-inl.h"

#include "backend/cpu/pack_512.h"

#include "backend/cpu/pack-inl.h"
SPECDEC_TARGET_END
