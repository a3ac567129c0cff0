#include "base/pool_width.h"

#include <algorithm>

namespace specdec {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Schedulers give out slices of a few milliseconds: a measurement needs several of them.
constexpr auto kMeasured = milliseconds(60);
constexpr auto kStopped = seconds(1);  // a task that takes so long says nothing of the scheduler
constexpr auto kKept = seconds(1);     // of tasks, until all threads get another chance, ...
constexpr int kMostDoublings = 2;      // ... doubled, while fewer are better, ...
constexpr int kTriedShare = 16;        // ... or so many times as long as was tried
constexpr auto kLongestKept = seconds(8);  // whatever the tasks take
constexpr auto kForgotten = milliseconds(500);
constexpr double kWorthTrying = 0.9;  // of what fewer threads could get done
constexpr double kClearly = 1.1;      // as much done
constexpr double kAsMuch = 0.9;       // of the best: still fewer may be better

int fewer_than(int width) { return width - std::max(width / 4, 1); }

}  // namespace

bool PoolWidth::is_forgotten(Clock::time_point now) const noexcept {
  return now - last_ > kForgotten;
}

int PoolWidth::begin(Clock::time_point now, bool crowded) noexcept {
  if (!at_rest() && is_forgotten(now)) phase_ = Phase::kRest;
  if (at_rest()) {
    if (!crowded) return full_;
    n_narrow_ = 0;
    best_ = full_;
  } else if (phase_ != Phase::kKeep || (kept_ < keep_ && now < kept_until_)) {
    return width_;
  } else if (width_ == full_ && !crowded) {
    phase_ = Phase::kRest;
    return full_;
  }
  // Fewer may have nobody to wait for, and not see who crowds them: measured all the same.
  before_ = best_;
  tried_ = {};
  measure(Phase::kFull, full_);
  return width_;
}

void PoolWidth::end(Clock::time_point begun, Clock::time_point now, Clock::duration busy) noexcept {
  last_ = now;
  if (!measures()) return;
  if (now - begun > kStopped) {
    tried_ += now - begun;
    if (phase_ == Phase::kFewer) keep(now);
    return;
  }
  passed_ += now - begun;
  busy_ += busy;
  if (passed_ < kMeasured) return;
  tried_ += passed_;
  const double done = static_cast<double>(busy_.count()) / static_cast<double>(passed_.count());
  if (phase_ == Phase::kFull || done > kClearly * best_done_) {
    best_ = width_;
    best_done_ = done;
  }
  // What was better the last time is tried first, and then still fewer.
  const bool again = phase_ == Phase::kFull && before_ < full_;
  const int next = again ? before_ : fewer_than(width_);
  const bool goes_on = done > kAsMuch * best_done_ && next >= 1 &&
                       kWorthTrying * (again ? fewer_than(full_) : next) > best_done_;
  if (goes_on) return measure(Phase::kFewer, next);
  keep(now);
}

void PoolWidth::end(Clock::time_point begun, Clock::time_point now) noexcept {
  last_ = now;
  kept_ += now - begun;
}

void PoolWidth::measure(Phase phase, int width) noexcept {
  phase_ = phase;
  width_ = width;
  passed_ = busy_ = Clock::duration{0};
}

void PoolWidth::keep(Clock::time_point now) noexcept {
  n_narrow_ = best_ < full_ ? n_narrow_ + 1 : 0;
  keep_ = kKept * (1 << std::clamp(n_narrow_ - 1, 0, kMostDoublings));
  // All threads alone are measured for nothing.
  if (phase_ == Phase::kFewer) keep_ = std::max<Clock::duration>(keep_, kTriedShare * tried_);
  kept_ = {};
  kept_until_ = now + kLongestKept;
  phase_ = Phase::kKeep;
  width_ = best_;
}

}  // namespace specdec
