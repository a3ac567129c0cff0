#include "engine/spread.h"

#include <algorithm>

namespace specdec {

double relative_spread(std::vector<double> values) {
  if (values.size() < 3) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t last = values.size() - 1;
  const double middle = values[values.size() / 2];
  return middle > 0 ? (values[last - last / 4] - values[last / 4]) / middle : 0;
}

}  // namespace specdec
