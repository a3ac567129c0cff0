// What a pass of a model costs, by the number of its rows.
#pragma once

#include <array>
#include <utility>
#include <vector>

namespace specdec {

// A shape relative to one row, and a scale that follows the machine: memory speed drifts, what
// several rows cost relative to one hardly does. Times in milliseconds.
class CostModel {
 public:
  static constexpr int kMaxRows = 64;  // beyond: in proportion

  CostModel();  // a guess; nothing measured

  // Measured passes, {rows, ms}; the first must be of one row.
  void calibrate(const std::vector<std::pair<int, double>>& measured);
  // A pass that took `ms`. A single outlier (the thread was preempted) counts little.
  void observe(int n_rows, double ms);
  // Several passes predicted to take `predicted` together.
  void observe_sum(double predicted, double ms);

  // As calibrate() takes it, at a few row counts, with what was learnt since.
  [[nodiscard]] std::vector<std::pair<int, double>> table() const;

  [[nodiscard]] bool known() const { return scale_ms_ > 0.0; }
  [[nodiscard]] double ms(int n_rows) const;  // 0 when nothing is known
  [[nodiscard]] double ratio(int n_rows) const;

 private:
  std::array<double, kMaxRows + 1> ratio_{};  // [rows]; ratio_[1] == 1
  double scale_ms_ = 0.0;                     // one row
};

}  // namespace specdec
