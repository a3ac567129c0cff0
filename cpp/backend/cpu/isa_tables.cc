// Which tables an instruction set uses.
#include "backend/cpu/matmul.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/pack.h"
#include "base/aligned_buffer.h"
#include "base/error.h"

namespace specdec {

const MatmulKernels& matmul_kernels(CpuIsa isa) {
  switch (isa) {
#define SPECDEC_ISA_HERE(id, space, name, floats, packs)                               \
  case CpuIsa::id: {                                                                   \
    static constexpr MatmulKernels kKernels(floats::kMatmulFloat, space::kMatmulQ32,   \
                                            space::kMatmulQ256, space::kMatmulRead256, \
                                            floats::kMatmulQ32, floats::kMatmulQ256);  \
    return kKernels;                                                                   \
  }
#define SPECDEC_WIDE_HERE(id, space, name, narrow_id, narrow)                                  \
  case CpuIsa::id: {                                                                           \
    static constexpr MatmulKernels kKernels(                                                   \
        narrow::kMatmulFloat, narrow::kMatmulQ32, narrow::kMatmulQ256, narrow::kMatmulRead256, \
        narrow::kMatmulQ32, narrow::kMatmulQ256, &space::kWide);                               \
    return kKernels;                                                                           \
  }
#include "base/isa.def"
    default:
      break;
  }
  throw_internal("an instruction set of this architecture", __FILE__, __LINE__);
}

void MatmulKernels::fill_wide(InputKind kind, const float* x, int col,
                              const PackedInput& input) const {
  thread_local AlignedBuffer memory;
  memory.require(packed_input_bytes(kind, input.n_in, 1));
  const PackedInput one = packed_input_view(kind, input.n_in, 1, memory.data());
  quantize(kind)(x, input.n_in, 0, one);
  put_wide_column(kind, one, col, input);
}

void MatmulKernels::fill_paired(InputKind kind, const float* x, int col,
                                const PackedInput& input) const {
  thread_local AlignedBuffer scratch;
  const auto n_codes = padded_n_in(kind, input.n_in) * input.n_cols;
  scratch.require(static_cast<std::size_t>(n_codes));
  PackedInput plain = input;  // but for the codes
  plain.q = scratch.as<std::int8_t>();
  quantize(kind)(x, input.n_in, col, plain);
  pair_column(kind, plain.q, col, input);
}

const OpsKernels& ops_kernels(CpuIsa isa) {
  switch (isa) {
#define SPECDEC_ISA_HERE(id, space, name, floats, packs) \
  case CpuIsa::id:                                       \
    return floats::kOps;
#define SPECDEC_WIDE_HERE(id, space, name, narrow_id, narrow) \
  case CpuIsa::id:                                            \
    return narrow::kOps;
#include "base/isa.def"
    default:
      break;
  }
  throw_internal("an instruction set of this architecture", __FILE__, __LINE__);
}

const PackKernels& pack_kernels(CpuIsa isa) {
  switch (isa) {
#define SPECDEC_ISA_HERE(id, space, name, floats, packs) \
  case CpuIsa::id:                                       \
    return packs::kPack;
#define SPECDEC_WIDE_HERE(id, space, name, narrow_id, narrow) \
  case CpuIsa::id:                                            \
    return narrow::kPack;
#include "base/isa.def"
    default:
      break;
  }
  throw_internal("an instruction set of this architecture", __FILE__, __LINE__);
}

}  // namespace specdec
