// The tables of matmul_*.cc, some per instruction set.
#pragma once

#include "backend/cpu/matmul.h"

namespace specdec::scalar {
extern const MatmulPart kMatmulFloat, kMatmulQ32, kMatmulQ256;
}
namespace specdec::avx2 {
extern const MatmulPart kMatmulFloat, kMatmulQ32, kMatmulQ256;
}
namespace specdec::avxvnni {
extern const MatmulPart kMatmulQ32, kMatmulQ256;
}
namespace specdec::avx512 {
extern const MatmulPart kMatmulFloat, kMatmulQ32, kMatmulQ256;
}
namespace specdec::neon {
extern const MatmulPart kMatmulFloat, kMatmulQ32, kMatmulQ256;
}
