#include "backend/cpu/recurrent_plan.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/ops.h"
#include "base/error.h"

namespace specdec {

void check_recurrent(const RecurrentTask& task) {
  const RecurrentShape& s = task.shape;
  SPECDEC_CHECK(s.n_heads > 0 && s.n_key_heads > 0 && s.n_taps > 0 &&
                s.n_taps <= kMaxRecurrentTaps);
  SPECDEC_CHECK(s.key_dim > 0 && s.key_dim % 16 == 0 && s.value_dim > 0 && s.value_dim % 16 == 0);
  SPECDEC_CHECK(task.out == nullptr ||
                (task.norm.kind == Norm::Kind::kRms && task.gate != nullptr));
}

std::size_t recurrent_scratch_floats(const RecurrentTask& task) {
  return RecurrentScratch(task).n_floats;
}

void keep_last_inputs(const RecurrentTask& task) {
  const RecurrentShape& shape = task.shape;
  const auto n = static_cast<std::size_t>(shape.n_channels());
  const int n_kept = shape.n_taps - 1;
  float* kept = task.state + shape.matrices_size();
  const int n_new = std::min(task.n_rows, n_kept);
  std::memmove(kept, kept + static_cast<std::size_t>(n_new) * n,
               static_cast<std::size_t>(n_kept - n_new) * n * sizeof(float));
  for (int i = 0; i < n_new; ++i) {
    std::memcpy(kept + static_cast<std::size_t>(n_kept - n_new + i) * n,
                task.inputs[task.n_rows - n_new + i], n * sizeof(float));
  }
}

}  // namespace specdec
