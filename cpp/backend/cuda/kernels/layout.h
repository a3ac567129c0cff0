// Where things lie in packed matrices and packed inputs; host side.
#pragma once

#include "backend/cuda/kernels/launch.h"

namespace specdec::cuda {

inline constexpr int kRowsPerTile = 16;  // rows of a matrix per block of threads
inline constexpr int kColsPerTile = 8;   // rows of x side by side in a packed input
inline constexpr int kMaxSlices = 16;    // pieces of k of one dot product

struct WeightLayout {
  InputKind kind = InputKind::kFloat;
  int unit = 0;          // k
  int header_bytes = 0;  // per tile and unit
  int code_bytes = 0;
};
[[nodiscard]] WeightLayout weight_layout(DType dtype);

[[nodiscard]] constexpr std::int64_t div_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}
[[nodiscard]] constexpr std::size_t aligned(std::size_t n) {
  return (n + kAlignment - 1) / kAlignment * kAlignment;
}

// Units of k per piece; the pieces are as even as whole units allow.
[[nodiscard]] constexpr std::int64_t units_per_slice(std::int64_t n_units) {
  return div_up(n_units, kMaxSlices);
}
[[nodiscard]] std::size_t header_plane_bytes(DType dtype, std::int64_t n_out, std::int64_t n_in);

// Rows of x are grouped by 8, and what belongs to one k or block lies side by side for them.
//   kFloat  x [tile][n_in padded to 16][8]
//   kQ32    q [tile][n_in padded to 64, / 32][32 lanes][2 words: k = 4t.., 16 + 4t.. of column g],
//           d [tile][/ 32][8], sums [tile][/ 32][8]
//   kQ256   q alike, d [tile][/ 256][8], sums [tile][/ 16][8]
struct InputView {
  std::uint8_t* q = nullptr;
  float* d = nullptr;
  std::int32_t* sums = nullptr;
  float* x = nullptr;
  std::int64_t n_k = 0;  // padded
};
[[nodiscard]] InputView input_view(InputKind kind, int n_rows, std::int64_t n_in, std::byte* data);

}  // namespace specdec::cuda
