// The tables that the translation units of the instruction sets fill (units/*.in).
#pragma once

#include "backend/cpu/matmul.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/pack.h"

#define SPECDEC_ISA_HERE(id, space, ...)                         \
  namespace specdec::space {                                     \
  extern const MatmulPart kMatmulFloat, kMatmulQ32, kMatmulQ256; \
  extern const OpsKernels kOps;                                  \
  extern const PackKernels kPack;                                \
  }
#include "base/isa.def"
