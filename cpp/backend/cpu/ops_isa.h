// The tables of ops_*.cc, one per instruction set.
#pragma once

#include "backend/cpu/ops.h"

namespace specdec::scalar {
extern const OpsKernels kOps;
}
namespace specdec::avx2 {
extern const OpsKernels kOps;
}
namespace specdec::avx512 {
extern const OpsKernels kOps;
}
namespace specdec::neon {
extern const OpsKernels kOps;
}
