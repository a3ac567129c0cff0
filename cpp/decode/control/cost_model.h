// What a pass of a model costs, by the number of its rows.
#pragma once

#include <array>
#include <utility>
#include <vector>

#include "base/rows.h"

namespace specdec {

// A mixture of experts: rows that choose other experts read more weights.
struct Mixture {
  double share = 0.0;  // of the weights that a pass of one row reads, experts
  int n_experts = 0;
  int n_used = 0;  // by a row

  // Weights that a pass reads, in those of one row, when its rows choose independently.
  [[nodiscard]] double independent(int n_rows) const;
};

// A shape relative to one row, and a scale that follows the machine. One row is bound by memory,
// whose speed drifts, many are bound by arithmetic: the scale follows passes of one row, the shape
// those of several. Times in milliseconds.
class CostModel {
 public:
  static constexpr int kMaxRows = 64;  // beyond: in proportion

  CostModel();  // a guess; nothing measured

  // Before calibrate(), whose times are then those of rows that choose independently.
  void set_mixture(const Mixture& mixture) { mixture_ = mixture; }
  [[nodiscard]] const Mixture& mixture() const { return mixture_; }
  // Another text: what is known of its routing is from others.
  void begin_request();
  // How rows of this text share experts.
  void observe_reading(const Reading& reading);

  // Measured passes, {rows, ms}; the first must be of one row.
  void calibrate(const std::vector<std::pair<int, double>>& measured);
  // A pass that took `ms`. A single outlier (the thread was preempted) counts little. `reading` is
  // of this pass where it has as many rows.
  void observe(int n_rows, double ms, const Reading& reading = {});
  // Several passes predicted to take `predicted` together.
  void observe_sum(double predicted, double ms);

  // As calibrate() takes it, at a few row counts, with what was learnt since.
  [[nodiscard]] std::vector<std::pair<int, double>> table() const;

  [[nodiscard]] bool known() const { return scale_ms_ > 0.0; }
  [[nodiscard]] double ms(int n_rows) const;  // 0 when nothing is known
  [[nodiscard]] double ratio(int n_rows) const;

 private:
  void adapt_shape(int n_rows, double shift);
  // What rows read more than one, as this text's rows share experts.
  [[nodiscard]] double weights(int n_rows) const;

  std::array<double, kMaxRows + 1> ratio_{};  // [rows], for equal weights; ratio_[1] == 1
  double scale_ms_ = 0.0;                     // one row
  int n_since_one_ = 0;                       // passes of several rows since one of one row
  double n_of_rows_ = 0;                      // passes of several rows
  Mixture mixture_;
  double spread_ = 1.0;  // 0: all rows choose the same experts, 1: independently
  int n_readings_ = 0;   // that it rests on
};

}  // namespace specdec
