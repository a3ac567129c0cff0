#include "base/pool_width.h"

#include <algorithm>

namespace specdec {
namespace {

// Schedulers give out slices of a few milliseconds: a comparison needs several of them.
constexpr auto kShortest = std::chrono::milliseconds(60);
constexpr int kFewest = 32;  // tasks
constexpr auto kKeep = std::chrono::seconds(1);
constexpr int kMostKept = 1;            // doublings of that, after tries in vain
constexpr double kClearlyFaster = 0.9;  // of the time

double ms_of(PoolWidth::Clock::duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

}  // namespace

int PoolWidth::choose(int n_threads) const noexcept {
  if (at_rest()) return n_threads;
  return std::min(n_threads, phase_ == Phase::kTry ? tried_ : width_);
}

void PoolWidth::note_crowd(int n_threads, Clock::time_point now) noexcept {
  if (!at_rest() || n_threads < 2) return;
  full_ = width_ = n_threads;
  narrower_ = true;
  n_in_vain_ = 0;
  begin(Phase::kMeasure, now);
}

void PoolWidth::note_task(int n_threads, Clock::time_point begun, Clock::time_point end,
                          bool crowded) noexcept {
  if (at_rest()) return;
  if (n_threads > full_) {  // of another model: nothing is known of it
    phase_ = Phase::kRest;
    if (crowded) note_crowd(n_threads, end);
    return;
  }
  if (phase_ == Phase::kKeep) {
    if (end - since_ < kKeep * (1 << std::min(n_in_vain_, kMostKept))) return;
    if (width_ == full_ && !crowded) {
      phase_ = Phase::kRest;
    } else {
      begin(Phase::kMeasure, end);
    }
    return;
  }
  if (n_threads != full_) return;  // not what is compared
  ++n_tasks_;
  busy_ms_ += ms_of(end - begun);
  if (end - since_ < kShortest || n_tasks_ < kFewest) return;
  compare(busy_ms_ / n_tasks_, end);
}

int PoolWidth::next_width() const noexcept {
  const int step = std::max(width_ / 4, 1);
  return std::clamp(narrower_ ? width_ - step : width_ + step, 1, full_);
}

void PoolWidth::begin(Phase phase, Clock::time_point now) noexcept {
  phase_ = phase;
  since_ = now;
  busy_ms_ = 0.0;
  n_tasks_ = 0;
}

void PoolWidth::compare(double ms_per_task, Clock::time_point now) noexcept {
  if (phase_ == Phase::kMeasure) {
    ms_per_task_ = ms_per_task;
    if (width_ == full_) narrower_ = true;
    if (width_ == 1) narrower_ = false;
    tried_ = next_width();
    begin(Phase::kTry, now);
    return;
  }
  if (ms_per_task < kClearlyFaster * ms_per_task_) {
    ms_per_task_ = ms_per_task;
    width_ = tried_;
    n_in_vain_ = 0;
    tried_ = next_width();  // further on that way
    if (tried_ != width_) return begin(Phase::kTry, now);
  } else {
    narrower_ = !narrower_;
    ++n_in_vain_;
  }
  begin(Phase::kKeep, now);
}

}  // namespace specdec
