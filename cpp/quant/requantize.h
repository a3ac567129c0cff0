// Weights of one format rewritten in another, at load.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace specdec {

// Formats that requantize() writes.
[[nodiscard]] std::span<const DType> requantize_types();
// By name, e.g. "q4_0"; throws Error(kInvalidArgument) listing them.
[[nodiscard]] DType parse_requantize_type(const std::string& name);

// Whether a matrix of rows of n_in weights becomes smaller in `to` and can be written so.
[[nodiscard]] bool requantize_pays(DType from, std::int64_t n_in, DType to);

// n_rows rows of n_in weights, on n_threads threads. Q4_0 takes the scale of each block with the
// least squared error; the others are as the reference quantisers write them.
[[nodiscard]] std::vector<std::byte> requantize(DType from, std::span<const std::byte> data,
                                                std::int64_t n_rows, std::int64_t n_in, DType to,
                                                int n_threads);

// One row of Q4_0 blocks; n: a multiple of 32.
void quantize_q4_0_best(const float* src, void* dst, std::int64_t n) noexcept;

}  // namespace specdec
