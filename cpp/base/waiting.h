// How threads of a pool wait for each other.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace specdec {

// Spins for about 50 microseconds, then yields for as long as that comes back at once. Where it
// does not, others want the processor, and who yields there waits for their time slices at every
// turn: a pass of a small model took up to 100 times as long, measured. Then it sleeps.
class Patience {
 public:
  // False when it is time to sleep, after so many yields at the latest.
  [[nodiscard]] bool pause(int n_yields) noexcept;
  // For what cannot be woken.
  void pause() noexcept;
  // All spins are used up, this very time.
  [[nodiscard]] bool just_spun() const noexcept { return n_ == kSpins; }

 private:
  static constexpr int kSpins = 1200;
  int n_ = 0;
};

// Whether others want the processors, as far as waiting threads have seen in the last half second.
// Reads a clock only if one of them has.
[[nodiscard]] bool crowded() noexcept;

// What a waiting thread notes that has seen it.
void note_crowd() noexcept;

// What this thread has had of a processor.
[[nodiscard]] std::chrono::nanoseconds processor_time() noexcept;

// A word that threads wait for, and how many sleep there: waking nobody would cost a system call.
class WaitWord {
 public:
  static constexpr int kUntilCrowded = 1 << 30;  // yields of who expects an end soon

  [[nodiscard]] std::uint32_t load() const noexcept { return word_.load(); }
  // Where nobody waits, or need not know.
  void prepare(std::uint32_t value) noexcept { word_.store(value, std::memory_order_relaxed); }
  void store(std::uint32_t value) noexcept {
    word_.store(value);  // ordered against n_asleep_: who falls asleep does both the other way
    wake();
  }
  // Wakes who waits for `last` when it comes to that.
  void add_one(std::uint32_t last) noexcept {
    if (word_.fetch_add(1) + 1 == last) wake();
  }
  // Until `ready` says so of its value, which is returned; `when_spun` is called once, when that
  // does not come soon.
  template <class Ready, class WhenSpun>
  std::uint32_t wait(int n_yields, const Ready& ready, const WhenSpun& when_spun) noexcept {
    Patience patience;
    for (;;) {
      const auto now = word_.load(std::memory_order_acquire);
      if (ready(now)) return now;
      if (patience.just_spun()) when_spun();
      if (!patience.pause(n_yields)) break;
    }
    n_asleep_.fetch_add(1);
    auto now = word_.load();
    for (; !ready(now); now = word_.load()) sleep(now);
    n_asleep_.fetch_sub(1);
    return now;
  }
  template <class Ready>
  std::uint32_t wait(int n_yields, const Ready& ready) noexcept {
    return wait(n_yields, ready, [] {});
  }

 private:
  void sleep(std::uint32_t value) const noexcept;
  void wake() noexcept;

  std::atomic<std::uint32_t> word_{0};
  std::atomic<int> n_asleep_{0};
};

}  // namespace specdec
