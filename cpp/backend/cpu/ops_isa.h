// The tables of ops_scalar.cc, ops_avx2.cc and ops_avx512.cc.
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
