#pragma once

#include "backend/cuda/kernels/matmul_float-inl.h"
#include "backend/cuda/kernels/matmul_launch.h"

namespace specdec::cuda {

template <class L, class F>
void run_float_format(const MatmulLaunch& launch, Stream stream) {
  if (launch.col_tiles == 1) return run_matmul<L, FloatUnit<F, 1>, 1>(launch, stream);
  if (launch.col_tiles == 2) return run_matmul<L, FloatUnit<F, 2>, 1>(launch, stream);
  run_matmul<L, FloatUnit<F, 4>, 1>(launch, stream);
}

template <class L>
void run_floats(const MatmulLaunch& launch, Stream stream) {
  switch (launch.dtype) {
    case DType::kF16:
      return run_float_format<L, FormatF16>(launch, stream);
    case DType::kBF16:
      return run_float_format<L, FormatBF16>(launch, stream);
    default:
      return run_float_format<L, FormatF32>(launch, stream);
  }
}

}  // namespace specdec::cuda
