// Fast packers of whole tiles; their result is that of the formats' own (quant/tile_format.h).
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
  PackKernel of[31];  // [DType id]; no `pack`: only the format's own
};

[[nodiscard]] const PackKernels& pack_kernels(CpuIsa isa);

}  // namespace specdec
