#include "decode/control/cost_model.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace specdec {
namespace {

constexpr double kScaleRate = 0.1;    // weight of one pass of one row in the scale ...
constexpr double kStaleRate = 0.015;  // ... and more for every pass since the last one, ...
constexpr double kMostStale = 0.4;    // ... at most so much more
constexpr double kMostUp = 0.1;       // and what one slow pass may add, by which losses look small
constexpr double kSumRate = 0.1;      // of passes that are known together only
// Memory and arithmetic do not slow down together: what passes of several rows take says little
// about the one row that they are set against.
constexpr double kRowsRate = 0.15;   // weight of one pass of several rows in what they take: ...
constexpr double kFirstRows = 2.0;   // ... 1 / (this + such passes before), if that is more
constexpr double kRowsShare = 0.1;   // of that, what the scale is told
constexpr double kNearby = 0.5;      // of the rest, what other numbers of rows are, next to it
constexpr double kSpreadRate = 0.1;  // of one pass in how rows share experts
constexpr int kOldReadings = 2;      // that all passes of earlier texts count for
constexpr double kMostSpread = 2.0;
constexpr double kOutlier = 1.5;  // how much a single pass may differ from what is believed

}  // namespace

double Mixture::independent(int n_rows) const {
  if (share <= 0.0 || n_used < 1 || n_experts < n_used) return 1.0;
  const double used = static_cast<double>(n_used) / n_experts;
  return 1.0 - share + share * (1.0 - std::pow(1.0 - used, n_rows)) / used;
}

CostModel::CostModel() {
  for (int rows = 1; rows <= kMaxRows; ++rows)
    ratio_[static_cast<std::size_t>(rows)] = 1.0 + 0.08 * (rows - 1);
}

void CostModel::begin_request() { n_readings_ = std::min(n_readings_, kOldReadings); }

void CostModel::observe_reading(const Reading& reading) {
  const double more = mixture_.independent(reading.n_rows) - 1.0;
  if (reading.n_rows < 2 || more <= 0.0) return;
  const double spread = std::clamp((reading.weights - 1.0) / more, 0.0, kMostSpread);
  ++n_readings_;
  spread_ += std::max(kSpreadRate, 1.0 / n_readings_) * (spread - spread_);
}

double CostModel::weights(int n_rows) const {
  return 1.0 + spread_ * (mixture_.independent(n_rows) - 1.0);
}

void CostModel::calibrate(const std::vector<std::pair<int, double>>& measured) {
  if (measured.empty() || measured[0].first != 1 || measured[0].second <= 0.0) return;
  scale_ms_ = measured[0].second;
  std::pair<int, double> last{1, 1.0};
  double slope = 0.0;
  for (std::size_t i = 1; i < measured.size(); ++i) {
    const auto [rows, ms] = measured[i];
    if (rows <= last.first || rows > kMaxRows) continue;
    // More rows never cost less; a measurement that says so is noise.
    const double ratio = std::max(ms / scale_ms_, last.second);
    slope = (ratio - last.second) / (rows - last.first);
    for (int r = last.first + 1; r <= rows; ++r)
      ratio_[static_cast<std::size_t>(r)] = last.second + slope * (r - last.first);
    last = {rows, ratio};
  }
  slope = std::max(slope, last.second / last.first * 0.5);
  for (int r = last.first + 1; r <= kMaxRows; ++r)
    ratio_[static_cast<std::size_t>(r)] = last.second + slope * (r - last.first);
  for (int r = 2; r <= kMaxRows; ++r)
    ratio_[static_cast<std::size_t>(r)] /= mixture_.independent(r);
}

std::vector<std::pair<int, double>> CostModel::table() const {
  std::vector<std::pair<int, double>> rows;
  if (!known()) return rows;
  for (const int n : {1, 2, 3, 4, 6, 8, 12, 16, kMaxRows})
    rows.emplace_back(n, scale_ms_ * ratio_[static_cast<std::size_t>(n)] * mixture_.independent(n));
  return rows;
}

double CostModel::ratio(int n_rows) const {
  const int rows = std::max(n_rows, 1);
  if (rows <= kMaxRows) return ratio_[static_cast<std::size_t>(rows)] * weights(rows);
  return ratio_[kMaxRows] * weights(kMaxRows) * rows / kMaxRows;
}

double CostModel::ms(int n_rows) const { return scale_ms_ * ratio(n_rows); }

void CostModel::observe(int n_rows, double ms, const Reading& reading) {
  if (ms <= 0.0 || n_rows < 1) return;
  const bool of_pass = reading.n_rows == n_rows && n_rows > 1 && mixture_.share > 0.0;
  // What this pass should have taken with the experts that it really read.
  const double expected =
      of_pass && n_rows <= kMaxRows
          ? scale_ms_ * ratio_[static_cast<std::size_t>(n_rows)] * reading.weights
          : this->ms(n_rows);
  observe_reading(of_pass ? reading : Reading{});
  if (!known()) {
    scale_ms_ = ms / ratio(n_rows);
    return;
  }
  const double error = std::clamp(ms / expected, 1.0 / kOutlier, kOutlier) - 1.0;
  if (n_rows == 1) {
    const double rate = kScaleRate + std::min(kStaleRate * n_since_one_, kMostStale);
    scale_ms_ *= 1.0 + std::min(rate * error, kMostUp);
    n_since_one_ = 0;
    return;
  }
  ++n_since_one_;
  const double rate = std::max(kRowsRate, 1.0 / (kFirstRows + n_of_rows_));
  ++n_of_rows_;
  scale_ms_ *= 1.0 + kRowsShare * rate * error;
  adapt_shape(std::min(n_rows, kMaxRows), (1.0 - kRowsShare) * rate * error);
}

// The ratio of these rows grows by the factor 1 + shift, that of others by less, the further off.
void CostModel::adapt_shape(int n_rows, double shift) {
  for (int rows = 2; rows <= kMaxRows; ++rows) {
    const int off = std::abs(rows - n_rows);
    const double part = off == 0 ? 1.0 : kNearby / off;
    double& ratio = ratio_[static_cast<std::size_t>(rows)];
    ratio = std::max(1.0 / mixture_.independent(rows), ratio * (1.0 + part * shift));
  }
}

void CostModel::observe_sum(double predicted, double ms) {
  if (!known() || predicted <= 0.0 || ms <= 0.0) return;
  const double error = std::clamp(ms / predicted, 1.0 / kOutlier, kOutlier);
  scale_ms_ *= 1.0 + kSumRate * (error - 1.0);
}

}  // namespace specdec
