// Activations as the matmul kernels read them: up to kMaxColumns rows of x side by side ("columns"
// of the product), quantised to int8. Arrays are [..][n_cols] with all columns of a block adjacent.
//
// For kernels that multiply pairs of columns the codes alone lie differently: [n_in/32][pair][4][2]
// [8], 8 of the one column and of the other in turn; an odd last one lies beside itself.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/input_kind.h"

namespace specdec {

inline constexpr int kTileRows = 16;        // output rows computed together, one per vector lane
inline constexpr int kMaxColumns = 8;       // columns that share one decoding of the weights
inline constexpr int kMaxWideColumns = 64;  // the same of kernels for many columns

[[nodiscard]] constexpr int even_columns(int n_cols) { return (n_cols + 1) / 2 * 2; }

struct PackedInput {
  int n_cols = 0;
  bool wide = false;  // laid out for kernels of many columns
  std::int64_t n_in = 0;
  // kFloat
  const float* x = nullptr;  // [n_in][n_cols]
  // kQ32 and kQ256
  const std::int8_t* q = nullptr;  // [n_in/32][n_cols][32]; for wide kernels [n_in/64][n_cols][64]
  const float* d = nullptr;        // scale, [n_in/32 or n_in/256][n_cols]
  // kQ32: minus the sum of each block of 32; kQ256: minus the sum of each 16.
  const std::int32_t* neg_sums = nullptr;
  const float* scaled_sums = nullptr;  // kQ32: d * sum, [n_in/32][n_cols]
  // kQ256: sums of neighbouring sub-blocks as two int16 in one word.
  const std::int32_t* pairs32 = nullptr;  // [n_in/64][n_cols]
  const std::int32_t* pairs16 = nullptr;  // [n_in/32][n_cols]
};

// Bytes of one input's arrays (each 64-byte aligned), and where they lie.
[[nodiscard]] std::size_t packed_input_bytes(InputKind kind, std::int64_t n_in, int n_cols);
// A PackedInput over `memory` (64-byte aligned, packed_input_bytes() long).
[[nodiscard]] PackedInput packed_input_view(InputKind kind, std::int64_t n_in, int n_cols,
                                            std::byte* memory);

// What follows the first k numbers of every column; k: a multiple of 64, for kQ256 of 256.
[[nodiscard]] PackedInput input_from(InputKind kind, const PackedInput& input, std::int64_t k);

// Copies an input of one column to column `col` of one for wide kernels.
void put_wide_column(InputKind kind, const PackedInput& one, int col, const PackedInput& wide);
// Column `col` of an input of pairs, from where it lies in codes of the usual order.
void pair_column(InputKind kind, const std::int8_t* codes, int col, const PackedInput& input);

// Length of a row of an input: n_in rounded up so that kernels may read whole units.
[[nodiscard]] constexpr std::int64_t padded_n_in(InputKind kind, std::int64_t n_in) {
  return kind == InputKind::kQ32 ? (n_in + 63) / 64 * 64 : n_in;
}

}  // namespace specdec
