// Loops over whole rows of logits, in the best instructions the machine has and with the same
// results on every one.
#pragma once

#include <bit>
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

// Values that at_least() takes at most.
inline constexpr std::size_t kMaskBits = 64;
// Bit i: values[i] >= floor.
[[nodiscard]] std::uint64_t at_least(std::span<const float> values, float floor);
[[nodiscard]] std::uint64_t at_least(std::span<const double> values, double floor);
// Calls visit(i) for each bit i of a mask, in ascending order.
template <class Visit>
void for_each_bit(std::uint64_t mask, Visit&& visit) {
  for (; mask != 0; mask &= mask - 1) visit(static_cast<std::size_t>(std::countr_zero(mask)));
}

}  // namespace specdec
