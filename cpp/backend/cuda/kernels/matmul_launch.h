// A product ready to run, between the dispatcher and the families of formats.
#pragma once

#include "backend/cuda/kernels/launch.h"
#include "backend/cuda/kernels/layout.h"
#include "backend/cuda/kernels/matmul-inl.h"

namespace specdec::cuda {

static_assert(kMatmulWarps == kMaxSlices);

struct MatmulLaunch {
  DType dtype = DType::kF32;
  MatmulParams params{};
  int n_slices = 0;   // pieces of k
  int col_tiles = 1;  // per block: 1, 2 or 4
  bool gated = false;
  bool use_dp4a = false;  // with one column tile, not gated
};

// Warps that a processor holds of a kernel.
template <class Unit>
inline constexpr int kResidentWarps = Unit::kMinBlocks * kMatmulWarps;

// L::launch<Body>(params, grid x, grid y, threads, bytes of shared memory, stream)
template <class L, class Unit, int kParts>
void run_matmul(const MatmulLaunch& launch, Stream stream) {
  MatmulParams p = launch.params;
  const int n_groups = static_cast<int>(div_up(p.n_col_tiles, launch.col_tiles));
  const int warps = kResidentWarps<Unit> * L::n_processors();
  // One warp per tile when that leaves few processors without work.
  const bool wide = 4 * std::int64_t{p.n_tiles} * n_groups >= 3 * std::int64_t{warps};
  const int n_warps = wide ? kMatmulWarps : launch.n_slices;
  p.ahead = wide ? warps : warps / launch.n_slices;
  const int n_bytes = n_warps * kParts * Unit::kTileCount * 128 * static_cast<int>(sizeof(float));
  if (wide) {
    L::template launch<WideMatmul<Unit, kParts>>(
        p, n_groups, static_cast<int>(div_up(p.n_tiles, n_warps)), 32 * n_warps, n_bytes, stream);
  } else {
    L::template launch<SlicedMatmul<Unit, kParts>>(p, n_groups, p.n_tiles, 32 * n_warps, n_bytes,
                                                   stream);
  }
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
    case DType::kQ4_0:
      return run_format<L, Unit32, FormatQ4_0>(launch, stream);
    case DType::kQ4_1:
      return run_format<L, Unit32, FormatQ4_1>(launch, stream);
    case DType::kQ5_0:
      return run_format<L, Unit32, FormatQ5_0>(launch, stream);
    case DType::kQ5_1:
      return run_format<L, Unit32, FormatQ5_1>(launch, stream);
    default:
      return run_format<L, Unit32, FormatQ8_0>(launch, stream);
  }
}

template <class L>
void run_q256(const MatmulLaunch& launch, Stream stream) {
  switch (launch.dtype) {
    case DType::kQ2_K:
      return run_format<L, Unit256, FormatQ2_K>(launch, stream);
    case DType::kQ3_K:
      return run_format<L, Unit256, FormatQ3_K>(launch, stream);
    case DType::kQ4_K:
      return run_format<L, Unit256, FormatQ4_K>(launch, stream);
    case DType::kQ5_K:
      return run_format<L, Unit256, FormatQ5_K>(launch, stream);
    default:
      return run_format<L, Unit256, FormatQ6_K>(launch, stream);
  }
}

}  // namespace specdec::cuda
