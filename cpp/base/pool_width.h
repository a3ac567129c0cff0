// How many of its threads a pool uses while others want the processors too.
#pragma once

#include <chrono>

namespace specdec {

// Threads that wait for each other at every turn get on only while all of them have a processor:
// beside one busy process on two processors one thread was twice as fast as two, measured with a
// small model. Where the processors are crowded, it is measured how much the threads get done
// together: their processor time, without what they wait for each other, by the time that passes.
// Where that is less than what fewer threads would get done if they could run, there are fewer. No
// result depends on it. For tasks that want so many threads; not thread-safe.
class PoolWidth {
 public:
  using Clock = std::chrono::steady_clock;

  explicit PoolWidth(int n_threads) noexcept : full_(n_threads), width_(n_threads) {}

  // Nobody else wants the processors: all threads are used, and nothing is measured.
  [[nodiscard]] bool at_rest() const noexcept { return phase_ == Phase::kRest; }
  // The threads of a task that begins now. `crowded`: others want the processors.
  [[nodiscard]] int begin(Clock::time_point now, bool crowded) noexcept;
  // Whether end() is to be told of it.
  [[nodiscard]] bool measures() const noexcept { return phase_ == Phase::kMeasure; }
  // `busy`: processor time of all its threads, without what they waited for each other.
  void end(Clock::time_point begun, Clock::time_point now, Clock::duration busy) noexcept;
  // Of one that was not measured.
  void end(Clock::time_point now) noexcept { last_ = now; }

 private:
  enum class Phase { kRest, kMeasure, kKeep };

  void measure(int width) noexcept;
  void keep(Clock::time_point now) noexcept;

  Phase phase_ = Phase::kRest;
  int full_;
  int width_;
  int n_narrow_ = 0;        // times in a row that fewer than all were better
  Clock::time_point last_;  // when the last task ended
  Clock::time_point kept_until_;
  Clock::duration passed_{0};  // in kMeasure: of tasks
  Clock::duration busy_{0};
};

}  // namespace specdec
