// How many of its threads a pool uses while others want the processors too.
#pragma once

#include <chrono>

namespace specdec {

// Threads that wait for each other at every turn get on only while all of them have a processor:
// beside one busy process on two processors one thread was twice as fast as two, measured with a
// small model. Where the processors are crowded, it is measured how much the threads get done
// together: their processor time, without what they wait for each other, by the time that passes.
// That is one measure for tasks of any kind. Where it is less than fewer threads would get done if
// all of them could run, these are tried, and kept for some seconds if they do get more done. No
// result depends on it. For tasks that want so many threads; not thread-safe.
class PoolWidth {
 public:
  using Clock = std::chrono::steady_clock;

  explicit PoolWidth(int n_threads) noexcept
      : full_(n_threads), width_(n_threads), best_(n_threads) {}

  // Nobody else wants the processors: all threads are used, and nothing is measured.
  [[nodiscard]] bool at_rest() const noexcept { return phase_ == Phase::kRest; }
  // Without tasks for a while what was found is worth nothing.
  [[nodiscard]] bool is_forgotten(Clock::time_point now) const noexcept;
  // The threads of a task that begins now. `crowded`: others want the processors.
  [[nodiscard]] int begin(Clock::time_point now, bool crowded) noexcept;
  // Whether end() is to be told how much it got done.
  [[nodiscard]] bool measures() const noexcept {
    return phase_ == Phase::kFull || phase_ == Phase::kFewer;
  }
  // `busy`: processor time of all its threads, without what they waited for each other.
  void end(Clock::time_point begun, Clock::time_point now, Clock::duration busy) noexcept;
  // Of one that was not measured.
  void end(Clock::time_point begun, Clock::time_point now) noexcept;

 private:
  enum class Phase { kRest, kFull, kFewer, kKeep };

  void measure(Phase phase, int width) noexcept;
  void keep(Clock::time_point now) noexcept;

  Phase phase_ = Phase::kRest;
  int full_;
  int width_;                     // of the tasks now
  int best_;                      // found at last
  int before_ = 0;                // found before that
  double best_done_ = 0.0;        // threads' worth of work that `best_` got done
  int n_narrow_ = 0;              // times in a row that fewer than all were better
  Clock::time_point last_;        // when the last task ended
  Clock::time_point kept_until_;  // in kKeep, at the latest
  Clock::duration keep_{0};       // in kKeep: for so much time of tasks, ...
  Clock::duration kept_{0};       // ... of which that has passed
  Clock::duration passed_{0};     // of the tasks that are measured
  Clock::duration busy_{0};
  Clock::duration tried_{0};  // of all that were measured since kKeep
};

}  // namespace specdec
