// How far apart measurements of one thing lie.
#pragma once

#include <vector>

namespace specdec {

// The middle half of `values` over their median: 0 for equal ones and for fewer than three.
[[nodiscard]] double relative_spread(std::vector<double> values);

}  // namespace specdec
