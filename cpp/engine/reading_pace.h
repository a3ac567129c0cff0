// How many rows of a long text make a pass of about a tenth of a second, so that a caller can be
// asked in between.
#pragma once

#include <algorithm>
#include <chrono>

#include "model/batch.h"

namespace specdec {

class ReadingPace {
 public:
  static constexpr int kFirstRows = 32;  // before anything was timed

  [[nodiscard]] int rows() const {
    if (ms_per_row_ <= 0) return kFirstRows;
    const double rows = std::clamp(100.0 / ms_per_row_, 16.0, static_cast<double>(kMaxBatchRows));
    return static_cast<int>(rows) / 16 * 16;
  }

  // Runs a pass of so many rows and learns from its time.
  template <typename Pass>
  void time(std::size_t n_rows, const Pass& pass) {
    const auto start = std::chrono::steady_clock::now();
    pass();
    if (n_rows < kFirstRows) return;
    const std::chrono::duration<double, std::milli> elapsed =
        std::chrono::steady_clock::now() - start;
    ms_per_row_ = elapsed.count() / static_cast<double>(n_rows);
  }

 private:
  double ms_per_row_ = 0;
};

}  // namespace specdec
