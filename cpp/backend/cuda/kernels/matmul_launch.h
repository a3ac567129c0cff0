// A product ready to run, between the dispatcher and the families of formats.
#pragma once

#include "backend/cuda/kernels/launch.h"
#include "backend/cuda/kernels/layout.h"
#include "backend/cuda/kernels/matmul-inl.h"

namespace specdec::cuda {

struct MatmulLaunch {
  DType dtype = DType::kF32;
  MatmulParams params{};
  int col_tiles = 1;  // per block: 1, 2 or 4
  bool gated = false;
  bool use_dp4a = false;  // with one column tile, not gated
};

// L::launch<Body>(params, grid x, grid y, threads, bytes of shared memory, stream)
template <class L, class Unit, int kParts>
void run_matmul(const MatmulLaunch& launch, Stream stream) {
  MatmulParams p = launch.params;
  const int n_groups = static_cast<int>(div_up(p.n_col_tiles, launch.col_tiles));
  const int warps = kSlicedWarps<Unit> * L::n_processors();  // at work at a time
  constexpr int kPieceBytes = kParts * Unit::kTileCount * 128 * static_cast<int>(sizeof(float));
  // One warp per tile when that leaves few processors without work.
  if (4 * std::int64_t{p.n_tiles} * n_groups >= 3 * std::int64_t{warps}) {
    p.ahead = warps;
    L::template launch<WideMatmul<Unit, kParts>>(p, n_groups,
                                                 static_cast<int>(div_up(p.n_tiles, kWideWarps)),
                                                 32 * kWideWarps, kWideWarps * kPieceBytes, stream);
    return;
  }
  p.slices_per_warp = static_cast<int>(div_up(p.n_slices, kSlicedWarps<Unit>));
  const auto n_warps = static_cast<int>(div_up(p.n_slices, p.slices_per_warp));
  p.ahead = warps / n_warps;
  L::template launch<SlicedMatmul<Unit, kParts>>(p, n_groups, p.n_tiles, 32 * n_warps,
                                                 p.n_slices * kPieceBytes, stream);
}

template <class L, template <class, int, class> class Unit, class F>
void run_format(const MatmulLaunch& launch, Stream stream) {
  if (launch.use_dp4a) return run_matmul<L, Unit<F, 1, DotProducts>, 1>(launch, stream);
  if (launch.gated) {
    return launch.col_tiles == 1 ? run_matmul<L, Unit<F, 1, TensorCores>, 2>(launch, stream)
                                 : run_matmul<L, Unit<F, 2, TensorCores>, 2>(launch, stream);
  }
  if (launch.col_tiles == 1) return run_matmul<L, Unit<F, 1, TensorCores>, 1>(launch, stream);
  if (launch.col_tiles == 2) return run_matmul<L, Unit<F, 2, TensorCores>, 1>(launch, stream);
  run_matmul<L, Unit<F, 4, TensorCores>, 1>(launch, stream);
}

template <class L>
void run_q32(const MatmulLaunch& launch, Stream stream) {
  switch (launch.dtype) {
#define SPECDEC_BLOCK32(name, ...) \
  case DType::k##name:             \
    return run_format<L, Unit32, Format32<Block##name>>(launch, stream);
#include "tensor/formats.def"
    default:
      return;
  }
}

template <class L>
void run_q256(const MatmulLaunch& launch, Stream stream) {
  switch (launch.dtype) {
#define SPECDEC_BLOCK256(name, ...) \
  case DType::k##name:              \
    return run_format<L, Unit256, Format256<Block##name>>(launch, stream);
#include "tensor/formats.def"
    default:
      return;
  }
}

}  // namespace specdec::cuda
