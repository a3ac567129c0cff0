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
#define SPECDEC_PLAIN(name, ...) \
  case DType::k##name:           \
    return run_float_format<L, Format##name>(launch, stream);
#include "tensor/formats.def"
    default:
      return;
  }
}

}  // namespace specdec::cuda
