#include "base/thread_pool.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/control_groups.h"
#include "base/error.h"
#include "base/log.h"
#include "base/system.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace specdec {
namespace {

constexpr int kMaxThreads = 256;
constexpr std::uint32_t kThreadMask = 0x1FF;
constexpr std::int64_t kNoChunk = std::int64_t{1} << 62;  // behind all that there are

inline void cpu_relax() noexcept {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins about 50 microseconds, then yields: a neighbour on the same core must be able to run.
class Backoff {
 public:
  static constexpr int kSpins = 1200;
  void pause() noexcept {
    if (n_ < kSpins) {
      ++n_;
      cpu_relax();
    } else {
      ::sched_yield();
    }
  }

 private:
  int n_ = 0;
};
constexpr int kPatience = Backoff::kSpins + 200;  // pauses before a thread sleeps

// Ends the part of a thread when another one has failed.
struct Abandoned {};

}  // namespace

// Everything the threads share. Fields written by different threads sit on their own cache lines.
struct ThreadPool::State {
  // Task count above, threads of that task in the low bits, in one word: a worker that wakes late
  // must never pair one task's number with another's thread count.
  alignas(64) std::atomic<std::uint32_t> epoch{0};
  alignas(64) std::atomic<int> n_arrived{0};        // at the barrier
  alignas(64) std::atomic<std::uint32_t> phase{0};  // counts barriers
  alignas(64) std::atomic<std::int64_t> next_chunk{0};
  alignas(64) std::atomic<int> n_running{0};  // workers still inside the task
  alignas(64) std::atomic<int> n_wanted{0};   // threads of the last task, told before its epoch
  alignas(64) std::atomic<bool> stop{false};

  // Of a task in which a thread met an exception; else only read.
  alignas(64) std::atomic<bool> failed{false};
  std::atomic<bool> caller_done{false};  // thread 0 is through, or has failed
  std::atomic<int> n_failed_workers{0};
  std::exception_ptr first_error;  // of them; for the caller, when all are done

  const std::function<void(TaskContext&)>* task = nullptr;
  std::atomic<int> n_waiters{0};  // workers asleep in epoch.wait
  std::mutex run_mutex;
  std::vector<std::thread> workers;
  bool refused = false;  // the system did not start a thread: not asked again for every task
  pid_t pid = ::getpid();

  void worker(int index, std::uint32_t seen) {
    for (;;) {
      seen = wait_for_task(seen);
      if (stop.load(std::memory_order_acquire)) return;
      const int active = static_cast<int>(seen & kThreadMask);
      if (index >= active) {
        sit_out(index);
        continue;
      }
      TaskContext context(index, active, this);
      try {
        (*task)(context);
      } catch (...) {
        note_failure();
        n_failed_workers.fetch_add(1);
        attend(active);
      }
      n_running.fetch_sub(1, std::memory_order_release);
    }
  }

  // Until a task wants that many again: apart from the others, whom every task wakes.
  void sit_out(int index) {
    Backoff backoff;
    for (int i = 0; i < kPatience; ++i) {
      if (n_wanted.load(std::memory_order_acquire) > index) return;
      backoff.pause();
    }
    for (int now; (now = n_wanted.load()) <= index;) n_wanted.wait(now);
  }

  void note_failure() noexcept {
    if (!failed.exchange(true)) first_error = std::current_exception();
    next_chunk.store(kNoChunk);  // the others need not do theirs
  }

  // A thread that has failed comes to the barriers all the same, until all others are through.
  void attend(int n_threads) noexcept {
    for (;;) {
      const auto now = phase.load();
      if (arrive(n_threads, now)) continue;
      Backoff backoff;
      while (phase.load() == now) {
        if (caller_done.load() && n_running.load() <= n_failed_workers.load()) return;
        backoff.pause();
      }
    }
  }

  // At a barrier; true: as the last one, which lets the others go.
  bool arrive(int n_threads, std::uint32_t now) noexcept {
    if (n_arrived.fetch_add(1, std::memory_order_acq_rel) != n_threads - 1) return false;
    n_arrived.store(0, std::memory_order_relaxed);
    next_chunk.store(failed.load(std::memory_order_relaxed) ? kNoChunk : 0,
                     std::memory_order_relaxed);
    phase.store(now + 1, std::memory_order_release);
    return true;
  }

  // Of thread 0, behind its own part.
  void wait_for_workers() noexcept {
    Backoff backoff;
    while (n_running.load(std::memory_order_acquire) != 0) backoff.pause();
  }

  // With run_mutex held. Starts workers up to n_threads - 1 or what the system allows; the reason
  // when it refuses.
  std::string start_workers(int n_threads) {
    while (static_cast<int>(workers.size()) < n_threads - 1) {
      const int index = static_cast<int>(workers.size()) + 1;
      const auto seen = epoch.load();
      workers.reserve(workers.size() + 1);  // a started thread must find its place
      try {
        workers.emplace_back([this, index, seen] { worker(index, seen); });
      } catch (const std::system_error& error) {
        refused = true;
        return error.code().message();
      }
    }
    return {};
  }

  // Spins, then yields for a while (a decode loop calls again soon), then sleeps.
  std::uint32_t wait_for_task(std::uint32_t seen) {
    Backoff backoff;
    for (int i = 0; i < kPatience; ++i) {
      const auto now = epoch.load(std::memory_order_acquire);
      if (now != seen) return now;
      backoff.pause();
    }
    n_waiters.fetch_add(1);
    while (epoch.load(std::memory_order_acquire) == seen)
      epoch.wait(seen, std::memory_order_acquire);
    n_waiters.fetch_sub(1);
    return epoch.load(std::memory_order_acquire);
  }
};

void TaskContext::barrier() {
  auto& state = *static_cast<ThreadPool::State*>(state_);
  if (n_threads_ == 1) {
    state.next_chunk.store(0, std::memory_order_relaxed);
    return;
  }
  const auto phase = state.phase.load(std::memory_order_acquire);
  if (!state.arrive(n_threads_, phase)) {
    Backoff backoff;
    while (state.phase.load(std::memory_order_acquire) == phase) backoff.pause();
  }
  // What another one should have done by now is not there to go on with.
  if (state.failed.load(std::memory_order_relaxed)) throw Abandoned();
}

std::int64_t TaskContext::next_chunk() noexcept {
  return static_cast<ThreadPool::State*>(state_)->next_chunk.fetch_add(1,
                                                                       std::memory_order_relaxed);
}

ThreadPool::ThreadPool() : state_(std::make_unique<State>()) {}

ThreadPool::~ThreadPool() {
  if (::getpid() != state_->pid) {
    // A forked child has no worker threads to join; their handles must not be destroyed either.
    (void)state_.release();
    return;
  }
  state_->stop.store(true, std::memory_order_release);
  state_->epoch.fetch_add(kThreadMask + 1);
  state_->epoch.notify_all();
  state_->n_wanted.store(kMaxThreads);
  state_->n_wanted.notify_all();
  for (auto& worker : state_->workers) worker.join();
}

ThreadPool& ThreadPool::shared() {
  static ThreadPool pool;
  return pool;
}

namespace {

void check_run(int n_threads, pid_t owner) {
  if (n_threads < 1 || n_threads > kMaxThreads) {
    throw_invalid("n_threads is " + std::to_string(n_threads) + "; expected 1 to " +
                  std::to_string(kMaxThreads));
  }
  if (::getpid() != owner) {
    throw Error(
        ErrorCode::kInternal,
        "specdec was used in a forked child of the process that loaded it; start workers with the "
        "'spawn' method and open the model there");
  }
}

}  // namespace

int ThreadPool::start(int n_threads) {
  State& state = *state_;
  check_run(n_threads, state.pid);
  int n_started = 0;
  std::string reason;
  {
    const std::lock_guard lock(state.run_mutex);
    reason = state.start_workers(n_threads);
    n_started = std::min(n_threads, static_cast<int>(state.workers.size()) + 1);
  }
  if (n_started < n_threads) {
    log_message(LogLevel::kWarning,
                "the system started only " + std::to_string(n_started) + " of " +
                    std::to_string(n_threads) + " threads (" + reason +
                    "), so that many are used; see 'ulimit -u' and pids.max of the control group");
  }
  return n_started;
}

void ThreadPool::run(int n_threads, const std::function<void(TaskContext&)>& task) {
  State& state = *state_;
  check_run(n_threads, state.pid);
  const std::lock_guard lock(state.run_mutex);
  if (!state.refused) (void)state.start_workers(n_threads);
  n_threads = std::min(n_threads, static_cast<int>(state.workers.size()) + 1);
  state.next_chunk.store(0, std::memory_order_relaxed);
  if (n_threads == 1) {
    TaskContext context(0, 1, &state);
    task(context);
    return;
  }
  state.task = &task;
  if (state.failed.load(std::memory_order_relaxed)) {  // the task before
    state.failed.store(false);
    state.n_failed_workers.store(0);
    state.n_arrived.store(0);
  }
  state.caller_done.store(false, std::memory_order_relaxed);
  state.n_running.store(n_threads - 1, std::memory_order_relaxed);
  if (const int before = state.n_wanted.load(std::memory_order_relaxed); before != n_threads) {
    state.n_wanted.store(n_threads);
    if (n_threads > before) state.n_wanted.notify_all();
  }
  const auto count = (state.epoch.load() & ~kThreadMask) + kThreadMask + 1;
  state.epoch.store(count |
                    static_cast<std::uint32_t>(n_threads));  // seq_cst: ordered against n_waiters
  if (state.n_waiters.load() > 0) state.epoch.notify_all();
  TaskContext context(0, n_threads, &state);
  try {
    task(context);
    state.caller_done.store(true);
  } catch (...) {
    state.note_failure();
    state.caller_done.store(true);
    state.attend(n_threads);
  }
  state.wait_for_workers();
  if (state.failed.load(std::memory_order_relaxed))
    std::rethrow_exception(std::exchange(state.first_error, nullptr));
}

int ThreadPool::default_n_threads() {
  if (const char* given = std::getenv("SPECDEC_THREADS"); given != nullptr && *given != '\0') {
    const std::string_view text = given;
    int n = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    if (error != std::errc() || end != text.data() + text.size() || n < 1 || n > kMaxThreads) {
      throw_invalid("SPECDEC_THREADS must be a whole number from 1 to " +
                    std::to_string(kMaxThreads) + ", not '" + printable(text) + "'");
    }
    return n;
  }
  int n = usable_cores();
  if (const auto cores_left = read_control_groups().cpu_cores)
    n = std::min(n, threads_for_cores(*cores_left));
  return std::clamp(n, 1, kMaxThreads);
}

}  // namespace specdec
