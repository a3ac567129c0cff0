// Loops over whole rows of logits, in the best instructions the machine has and with the same
// results on every one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace specdec {

struct RowTop {
  float max;  // -infinity for an empty row; NaN is passed over
  bool has_nan;
};
[[nodiscard]] RowTop row_top(std::span<const float> row);

// out[i] = (row[i] - max) / temperature
void log_weights_of(std::span<const float> row, double max, double temperature, double* out);

// Sum of exp(values[i]), in a fixed order.
[[nodiscard]] double exp_sum(std::span<const double> values);

// Bit i: values[i] >= floor; at most 64 of them.
[[nodiscard]] std::uint64_t at_least(std::span<const float> values, float floor);
[[nodiscard]] std::uint64_t at_least(std::span<const double> values, double floor);

}  // namespace specdec
