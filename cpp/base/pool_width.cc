#include "base/pool_width.h"

#include <algorithm>

namespace specdec {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Schedulers give out slices of a few milliseconds: a measurement needs several of them.
constexpr auto kMeasured = milliseconds(60);
constexpr auto kStopped = seconds(1);      // a task that takes so long was none of the scheduler's
constexpr auto kKept = seconds(1);         // until all threads get another chance, ...
constexpr int kMostDoublings = 2;          // doubled, while fewer are better, ...
constexpr int kTriedShare = 16;            // or so many times as long as was tried, ...
constexpr auto kLongestKept = seconds(8);  // at most
constexpr auto kForgotten = milliseconds(500);
constexpr double kWorthTrying = 0.9;  // of what fewer threads could get done
constexpr double kClearly = 1.1;      // as much done

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
    tried_ = {};
    measure(Phase::kFull, full_);
  } else if (phase_ == Phase::kKeep && now >= kept_until_) {
    if (width_ == full_ && !crowded) {
      phase_ = Phase::kRest;
    } else {  // fewer may find nobody to wait for: who crowds them goes unseen
      tried_ = {};
      measure(Phase::kFull, full_);
    }
  }
  return width_;
}

void PoolWidth::end(Clock::time_point begun, Clock::time_point now, Clock::duration busy,
                    bool crowded) noexcept {
  last_ = now;
  if (!measures()) return;
  if (now - begun > kStopped) return measure(phase_, width_);
  passed_ += now - begun;
  busy_ += busy;
  if (passed_ < kMeasured) return;
  tried_ += passed_;
  const double done = static_cast<double>(busy_.count()) / static_cast<double>(passed_.count());
  if (phase_ == Phase::kFewer) {
    if (done > kClearly * best_done_) return try_fewer(done, now);
    width_ = best_;
    return keep(now);
  }
  if (best_ < full_ && done * kClearly < best_done_) {  // as before
    width_ = best_;
    return keep(now);
  }
  if (!crowded) {
    best_ = full_;
    return keep(now);  // to see nobody for a while
  }
  try_fewer(done, now);
}

// The width of now is the best so far.
void PoolWidth::try_fewer(double done, Clock::time_point now) noexcept {
  best_ = width_;
  best_done_ = done;
  const int fewer = fewer_than(width_);
  if (fewer < 1 || done >= kWorthTrying * fewer) return keep(now);
  measure(Phase::kFewer, fewer);
}

void PoolWidth::measure(Phase phase, int width) noexcept {
  phase_ = phase;
  width_ = width;
  passed_ = busy_ = Clock::duration{0};
}

void PoolWidth::keep(Clock::time_point now) noexcept {
  phase_ = Phase::kKeep;
  n_narrow_ = width_ < full_ ? n_narrow_ + 1 : 0;
  kept_until_ = now + kKept;
  if (n_narrow_ == 0) return;
  const int doublings = std::min(n_narrow_ - 1, kMostDoublings);
  const Clock::duration longer =
      std::max<Clock::duration>(kKept * (1 << doublings), kTriedShare * tried_);
  kept_until_ = now + std::min<Clock::duration>(longer, kLongestKept);
}

}  // namespace specdec
