#include "base/waiting.h"

#include <sched.h>
#include <time.h>

#include <chrono>

#include "base/system.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace specdec {
namespace {

using Clock = std::chrono::steady_clock;
constexpr Clock::duration kAtOnce = std::chrono::microseconds(200);  // or to one of its own pool
constexpr Clock::duration kDoubt = std::chrono::milliseconds(10);    // before two of them say so
constexpr Clock::duration kMemory = std::chrono::milliseconds(500);

// What waiting threads have seen, as times: since when others seem to want the processors, and
// until when that is believed.
std::atomic<Clock::rep> suspected_since{0};
std::atomic<Clock::rep> crowded_until{0};

void yield() noexcept {
  const auto before = Clock::now();
  ::sched_yield();
  const auto now = Clock::now();
  if (now - before < kAtOnce) return;
  const Clock::time_point since{Clock::duration(suspected_since.load(std::memory_order_relaxed))};
  const bool believed = now - since > kDoubt && now - since <= 2 * kMemory;
  if (believed) note_crowd();
  // The next one after some time is believed at once.
  if (believed || now - since > 2 * kMemory)
    suspected_since.store(now.time_since_epoch().count(), std::memory_order_relaxed);
}

inline void cpu_relax() noexcept {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

std::chrono::nanoseconds processor_time() noexcept {
  timespec now{};
  (void)::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

void note_crowd() noexcept {
  crowded_until.store((Clock::now() + kMemory).time_since_epoch().count(),
                      std::memory_order_relaxed);
}

bool crowded() noexcept {
  Clock::rep until = crowded_until.load(std::memory_order_relaxed);
  if (until == 0) return false;
  if (Clock::now().time_since_epoch().count() < until) return true;
  crowded_until.compare_exchange_strong(until, 0, std::memory_order_relaxed);
  return false;
}

bool Patience::pause(int n_yields) noexcept {
  if (n_ < kSpins) {
    cpu_relax();
  } else if (n_ - kSpins >= n_yields || crowded()) {
    return false;
  } else {
    yield();
  }
  ++n_;
  return true;
}

void Patience::pause() noexcept {
  if (n_ < kSpins) {
    ++n_;
    cpu_relax();
  } else {
    ::sched_yield();
  }
}

void WaitWord::sleep(std::uint32_t value) const noexcept { sleep_on(word_, value); }

void WaitWord::wake() noexcept {
  if (n_asleep_.load() > 0) wake_sleepers(word_);
}

}  // namespace specdec
