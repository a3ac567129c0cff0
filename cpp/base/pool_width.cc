#include "base/pool_width.h"

#include <algorithm>

namespace specdec {
namespace {

// Schedulers give out slices of a few milliseconds: a measurement needs several of them.
constexpr auto kMeasured = std::chrono::milliseconds(60);
constexpr auto kKept = std::chrono::seconds(1);  // until all threads get another chance
constexpr int kMostDoublings = 2;                // of that, while fewer are better
constexpr int kShare = 16;                       // or so many times as long as was measured
constexpr auto kForgotten = std::chrono::milliseconds(500);  // without a task
constexpr double kClearly = 0.9;                             // of what fewer threads would get done

}  // namespace

int PoolWidth::begin(Clock::time_point now, bool crowded) noexcept {
  if (!at_rest() && now - last_ > kForgotten) phase_ = Phase::kRest;
  if (at_rest()) {
    if (!crowded) return full_;
    n_narrow_ = 0;
    measure(full_);
  } else if (phase_ == Phase::kKeep) {
    if (now < kept_until_) return width_;
    if (width_ == full_ && !crowded) {
      phase_ = Phase::kRest;
    } else {  // fewer may find nobody to wait for: who crowds them goes unseen
      measure(full_);
    }
  }
  return width_;
}

void PoolWidth::end(Clock::time_point begun, Clock::time_point now, Clock::duration busy) noexcept {
  last_ = now;
  if (!measures()) return;
  passed_ += now - begun;
  busy_ += busy;
  if (passed_ < kMeasured) return;
  const double done = static_cast<double>(busy_.count()) / static_cast<double>(passed_.count());
  const int fewer = width_ - std::max(width_ / 4, 1);
  if (fewer < 1 || done >= kClearly * fewer) return keep(now);
  if (fewer > 1) return measure(fewer);
  width_ = 1;  // it waits for nobody
  keep(now);
}

void PoolWidth::measure(int width) noexcept {
  phase_ = Phase::kMeasure;
  width_ = width;
  passed_ = busy_ = Clock::duration{0};
}

void PoolWidth::keep(Clock::time_point now) noexcept {
  phase_ = Phase::kKeep;
  n_narrow_ = width_ < full_ ? n_narrow_ + 1 : 0;
  const int doublings = std::clamp(n_narrow_ - 1, 0, kMostDoublings);
  kept_until_ = now + kKept * (1 << doublings);
  if (n_narrow_ > 0) kept_until_ = std::max(kept_until_, now + kShare * passed_);
}

}  // namespace specdec
