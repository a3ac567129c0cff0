// Where one head of a recurrent task keeps what, in a thread's scratch.
#pragma once

#include <cstddef>

#include "backend/backend.h"

namespace specdec {

// Columns of a state matrix that are worked on together: they stay in the first cache for all rows.
inline constexpr int kRecurrentColumns = 64;

struct RecurrentScratch {
  std::size_t taps;    // [n_taps][2 key_dim + value_dim] the head's part of the convolution
  std::size_t rows;    // [n_rows][row_stride] q, k, v, o, then decay and b
  std::size_t states;  // of a tree [n_rows][key_dim][kRecurrentColumns]
  std::size_t n_floats;
  std::size_t row_stride;
  std::size_t state_stride;

  explicit RecurrentScratch(const RecurrentTask& task) {
    const auto key = static_cast<std::size_t>(task.shape.key_dim);
    const auto value = static_cast<std::size_t>(task.shape.value_dim);
    const auto n_rows = static_cast<std::size_t>(task.n_rows);
    row_stride = 2 * key + 2 * value + 16;
    state_stride = key * kRecurrentColumns;
    taps = 0;
    rows = static_cast<std::size_t>(task.shape.n_taps) * (2 * key + value);
    states = rows + n_rows * row_stride;
    n_floats = states + (task.parents != nullptr ? n_rows * state_stride : 0);
  }
};

}  // namespace specdec
