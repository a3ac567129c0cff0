// Matrix times a few columns, one table of kernels per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cpu/panel.h"
#include "base/cpu_isa.h"
#include "tensor/dtype.h"

namespace specdec {

// out[c * kTileRows + r] = row r of the tile row times column c. `tiles`: one tile row, all of k.
using TileKernel = void (*)(const std::uint8_t* tiles, const Panel& panel, float* out);

// Writes column `col` of the panel from one row of activations.
using QuantizeKernel = void (*)(const float* x, std::int64_t n_in, int col, const Panel& panel);

struct MatmulKernels {
  TileKernel tile[31][kMaxColumns];  // [DType id][n_cols - 1]
  QuantizeKernel quantize[3];        // [PanelKind]
};

[[nodiscard]] const MatmulKernels& matmul_kernels(CpuIsa isa);

}  // namespace specdec
