#pragma once

#include "backend/cuda/kernels/matmul_float-inl.h"
#include "backend/cuda/kernels/matmul_launch.h"

namespace specdec::cuda {

template <class L, class F>
void run_float_format(const MatmulLaunch& launch, Stream stream) {
  const auto run = [&]<class Unit>() {
    if (launch.gated) return run_matmul<L, Unit, 2>(launch, stream);
    run_matmul<L, Unit, 1>(launch, stream);
  };
  // Experts have whole tiles of 8 rows (expert_slots()).
  if (launch.params.n_rows <= 4) {
    if (launch.params.n_rows == 1) return run.template operator()<FloatUnit<F, 1, 1>>();
    return run.template operator()<FloatUnit<F, 1, 4>>();
  }
  if (launch.col_tiles == 1) return run.template operator()<FloatUnit<F, 1>>();
  if (launch.col_tiles == 2) return run.template operator()<FloatUnit<F, 2>>();
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
