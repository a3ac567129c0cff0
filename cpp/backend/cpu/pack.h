// Fast packers of whole tiles; their result is that of tile_format().
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu_isa.h"
#include "tensor/dtype.h"

namespace specdec {

struct PackKernel {
  // Packs n_units units of k of 16 rows; rows[r] is where row r's first unit begins.
  void (*pack)(const std::byte* const* rows, std::uint8_t* tiles) = nullptr;
  int n_units = 0;
};

struct PackKernels {
  PackKernel of[kDTypeCount];  // [dtype_index()]; no `pack`: only the format's own
};

[[nodiscard]] const PackKernels& pack_kernels(CpuIsa isa);

}  // namespace specdec

// Of each instruction set, filled by its translation unit (units/*.in).
#define SPECDEC_ISA_HERE(id, space, ...) \
  namespace specdec::space {             \
  extern const PackKernels kPack;        \
  }
#include "base/isa.def"
