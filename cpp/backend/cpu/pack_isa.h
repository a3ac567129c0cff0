// The tables of pack_*.cc, one per instruction set.
#pragma once

#include "backend/cpu/pack.h"

namespace specdec::scalar {
extern const PackKernels kPack;
}
namespace specdec::avx2 {
extern const PackKernels kPack;
}
namespace specdec::avx512 {
extern const PackKernels kPack;
}
