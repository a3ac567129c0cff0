// How many of its threads a pool uses while others want the processors too.
#pragma once

#include <chrono>

namespace specdec {

// Threads that wait for each other at every turn get on only while all of them have a processor:
// beside four busy processes on two processors one thread was three times as fast as two, measured
// with a small model. What is faster is found by trying: where the processors are crowded, tasks
// are timed, by the mean of many, with fewer threads in turns. Whatever it says no result depends
// on it. Not thread-safe.
class PoolWidth {
 public:
  using Clock = std::chrono::steady_clock;

  // Nothing is to be timed: all threads are used.
  [[nodiscard]] bool at_rest() const noexcept { return phase_ == Phase::kRest; }
  // Of a task that wants n_threads, so many.
  [[nodiscard]] int choose(int n_threads) const noexcept;
  // Others want the processors, as a task with n_threads has found.
  void note_crowd(int n_threads, Clock::time_point now) noexcept;
  // A task that wanted n_threads took from begin to end. `crowded`: others want the processors.
  void note_task(int n_threads, Clock::time_point begin, Clock::time_point end,
                 bool crowded) noexcept;

 private:
  enum class Phase { kRest, kMeasure, kTry, kKeep };

  [[nodiscard]] int next_width() const noexcept;
  void begin(Phase phase, Clock::time_point now) noexcept;
  void compare(double ms_per_task, Clock::time_point now) noexcept;

  Phase phase_ = Phase::kRest;
  int full_ = 1;              // threads that tasks want
  int width_ = 1;             // that the best known is
  int tried_ = 1;             // that are used in kTry
  bool narrower_ = true;      // is tried next
  int n_in_vain_ = 0;         // tries in a row
  double ms_per_task_ = 0.0;  // with width_ threads
  Clock::time_point since_;   // of this phase
  double busy_ms_ = 0.0;      // and what its tasks took
  int n_tasks_ = 0;
};

}  // namespace specdec
