#include "base/thread_pool.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <chrono>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/forked.h"
#include "base/log.h"
#include "base/pool_width.h"
#include "base/system.h"
#include "base/waiting.h"

namespace specdec {
namespace {

constexpr int kMaxThreads = ThreadPool::kMaxThreads;
constexpr std::uint32_t kThreadMask = 0x1FF;
constexpr std::int64_t kNoChunk = std::int64_t{1} << 62;  // behind all that there are

constexpr int kYieldsWithoutTask = 200;
constexpr auto kMoveAfter = std::chrono::milliseconds(5);  // the last time, at the soonest

// Ends the part of a thread when another one has failed.
struct Abandoned {};

std::atomic<int> n_all{0};  // AllThreads that live

}  // namespace

// Everything the threads share. What one thread writes while others read or write something else
// sits on a cache line of its own, and what is read together on one: a line takes 100 ns to get
// from one processor to another, and a small model has 40 tasks a token.
struct ThreadPool::State {
  // Written by thread 0 at the start of a task. The task count above, threads of that task in the
  // low bits, in one word: a worker that wakes late must never pair one task's number with
  // another's thread count.
  alignas(64) WaitWord epoch;
  const std::function<void(TaskContext&)>* task = nullptr;
  std::uint32_t all_finished = 0;   // what n_finished comes to
  int n_wanted_threads = 0;         // by the caller of run()
  bool measured = false;            // threads note their processor time in `spent`
  std::atomic<bool> failed{false};  // the task, in which a thread met an exception
  std::atomic<bool> stop{false};

  alignas(64) WaitWord n_finished;            // workers that are through, since the start
  alignas(64) std::atomic<int> n_arrived{0};  // at the barrier
  std::atomic<std::int64_t> next_chunk{0};
  alignas(64) WaitWord phase;     // counts barriers
  alignas(64) WaitWord n_wanted;  // threads of the last task, told before its epoch

  // Of a task that has failed.
  alignas(64) std::atomic<bool> caller_done{false};  // thread 0 is through, or has failed
  std::atomic<std::uint32_t> n_failed_workers{0};
  std::exception_ptr first_error;  // of them; for the caller, when all are done

  struct alignas(64) Place {
    std::atomic<int> cpu{-1};
  };
  static constexpr int kMostMoved = 64;  // threads: with more there is no one whose place matters
  static constexpr unsigned kTasksAPlace = 8;  // some systems must be called to tell it
  std::array<Place, kMostMoved> processors;  // that the workers had, when they took their last task
  std::chrono::steady_clock::time_point next_move;  // of separate()

  // Of a task that is measured: its processor time, and that of waiting at barriers.
  struct alignas(64) Spent {
    std::chrono::nanoseconds in_task{0};
    std::chrono::nanoseconds waiting{0};
  };
  std::vector<Spent> spent;  // [kMaxThreads], once there was a crowd

  std::mutex run_mutex;
  // With run_mutex held:
  std::map<int, PoolWidth> widths;  // by the threads that tasks want
  bool adapting = false;            // one of them is not at rest
  int limit = 0;                    // of threads, > 0
  std::vector<std::thread> workers;
  bool refused = false;  // the system did not start a thread: not asked again for every task

  void run(int n_threads, const std::function<void(TaskContext&)>& todo);
  void run_in_crowd(int n_threads, const std::function<void(TaskContext&)>& todo);
  PoolWidth::Clock::duration run_measured(int n_threads,
                                          const std::function<void(TaskContext&)>& todo);

  void execute(const std::function<void(TaskContext&)>& todo, TaskContext& context) {
    if (!measured) return todo(context);
    Spent& own = spent[static_cast<std::size_t>(context.thread())];
    own.waiting = {};
    const auto before = processor_time();
    todo(context);
    own.in_task = processor_time() - before;
  }

  void worker(int index, std::uint32_t seen) {
    const auto own = static_cast<std::uint32_t>(index);
    unsigned n_tasks = 0;
    for (;;) {
      seen = epoch.wait(kYieldsWithoutTask, [&](std::uint32_t now) { return now != seen; });
      if (stop.load(std::memory_order_acquire)) return;
      const int active = static_cast<int>(seen & kThreadMask);
      if (index >= active) {
        // Until a task wants that many again: apart from the others, whom every task wakes.
        n_wanted.wait(kYieldsWithoutTask, [&](std::uint32_t wanted) { return wanted > own; });
        continue;
      }
      if (active <= kMostMoved && n_tasks++ % kTasksAPlace == 0)
        processors[own].cpu.store(current_processor(), std::memory_order_relaxed);
      TaskContext context(index, active, n_wanted_threads, this);
      try {
        execute(*task, context);
      } catch (...) {
        note_failure();
        n_failed_workers.fetch_add(1);
        attend(active);
      }
      n_finished.add_one(all_finished);
    }
  }

  // Of thread 0, when it waits for long. Schedulers leave two threads that need each other on one
  // processor while others idle: 150 ms, measured, in which a small model takes 5 times as long.
  void separate(int n_threads) noexcept {
    if (n_threads > kMostMoved) return;
    const auto now = std::chrono::steady_clock::now();
    if (now < next_move) return;
    next_move = now + kMoveAfter;
    Processors taken;
    const auto take = [&](int cpu) {
      if (cpu < 0 || cpu >= static_cast<int>(taken.size())) return true;
      const bool is_free = !taken[static_cast<std::size_t>(cpu)];
      taken.set(static_cast<std::size_t>(cpu));
      return is_free;
    };
    (void)take(current_processor());
    std::bitset<kMostMoved> together;
    for (std::size_t i = 1; i < static_cast<std::size_t>(n_threads); ++i)
      together[i] = !take(processors[i].cpu.load(std::memory_order_relaxed));
    for (std::size_t i = 1; i < static_cast<std::size_t>(n_threads); ++i) {
      if (!together[i]) continue;
      (void)move_thread(workers[i - 1], taken);
      processors[i].cpu.store(-1, std::memory_order_relaxed);  // until it says where it is now
    }
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
      Patience patience;
      while (phase.load() == now) {
        if (caller_done.load() && all_finished - n_finished.load() <= n_failed_workers.load())
          return;
        patience.pause();
      }
    }
  }

  // At a barrier; true: as the last one, which lets the others go.
  bool arrive(int n_threads, std::uint32_t now) noexcept {
    if (n_arrived.fetch_add(1, std::memory_order_acq_rel) != n_threads - 1) return false;
    n_arrived.store(0, std::memory_order_relaxed);
    next_chunk.store(failed.load(std::memory_order_relaxed) ? kNoChunk : 0,
                     std::memory_order_relaxed);
    phase.store(now + 1);
    return true;
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
};

void TaskContext::barrier() {
  auto& state = *static_cast<ThreadPool::State*>(state_);
  if (n_threads_ == 1) {
    state.next_chunk.store(0, std::memory_order_relaxed);
    return;
  }
  const auto before = state.measured ? processor_time() : std::chrono::nanoseconds{};
  const auto phase = state.phase.load();
  if (!state.arrive(n_threads_, phase)) {
    const auto moved_on = [&](std::uint32_t now) { return now != phase; };
    state.phase.wait(WaitWord::kUntilCrowded, moved_on, [&] {
      if (thread_ == 0) state.separate(n_threads_);
    });
  }
  if (state.measured)
    state.spent[static_cast<std::size_t>(thread_)].waiting += processor_time() - before;
  // What another one should have done by now is not there to go on with.
  if (state.failed.load(std::memory_order_relaxed)) throw Abandoned();
}

std::int64_t TaskContext::next_chunk() noexcept {
  return static_cast<ThreadPool::State*>(state_)->next_chunk.fetch_add(1,
                                                                       std::memory_order_relaxed);
}

ThreadPool::ThreadPool() : state_(std::make_unique<State>()) {
  (void)in_forked_child();  // from now on
}

ThreadPool::~ThreadPool() {
  if (in_forked_child()) {
    // A forked child has no worker threads to join; their handles must not be destroyed either.
    (void)state_.release();
    return;
  }
  state_->stop.store(true, std::memory_order_release);
  state_->epoch.store(state_->epoch.load() + kThreadMask + 1);
  state_->n_wanted.store(kMaxThreads);
  for (auto& worker : state_->workers) worker.join();
}

ThreadPool& ThreadPool::shared() {
  static ThreadPool pool;
  return pool;
}

namespace {

void check_run(int n_threads) {
  if (n_threads < 1 || n_threads > kMaxThreads) {
    throw_invalid("n_threads is " + std::to_string(n_threads) + "; expected 1 to " +
                  std::to_string(kMaxThreads));
  }
  if (in_forked_child()) {
    throw Error(
        ErrorCode::kInternal,
        "specdec was used in a forked child of the process that loaded it; start workers with the "
        "'spawn' method and open the model there");
  }
}

}  // namespace

int ThreadPool::start(int n_threads) {
  State& state = *state_;
  check_run(n_threads);
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
  check_run(n_threads);
  const std::lock_guard lock(state.run_mutex);
  if (!state.refused) (void)state.start_workers(n_threads);
  state.n_wanted_threads = n_threads;
  n_threads = std::min(n_threads, static_cast<int>(state.workers.size()) + 1);
  if (state.limit > 0) n_threads = std::min(n_threads, state.limit);
  if (n_threads == 1 || n_all.load(std::memory_order_relaxed) > 0 ||
      (!state.adapting && !crowded())) {
    state.run(n_threads, task);
  } else {
    state.run_in_crowd(n_threads, task);
  }
}

// The same where others want the processors, or did.
void ThreadPool::State::run_in_crowd(int n_threads, const std::function<void(TaskContext&)>& todo) {
  using Clock = PoolWidth::Clock;
  PoolWidth& width = widths.try_emplace(n_threads, n_threads).first->second;
  const auto begun = Clock::now();
  const int n = width.begin(begun, crowded());
  if (width.measures()) {
    const Clock::duration busy = run_measured(n, todo);
    width.end(begun, Clock::now(), busy);
  } else {
    run(n, todo);
    width.end(begun, Clock::now());
  }
  // What nobody asks for any more does not keep the others awake.
  std::erase_if(widths, [&](const auto& each) {
    return each.second.at_rest() || each.second.is_forgotten(begun);
  });
  adapting = !widths.empty();
}

// The same; the processor time that it took.
PoolWidth::Clock::duration ThreadPool::State::run_measured(
    int n_threads, const std::function<void(TaskContext&)>& todo) {
  if (spent.empty()) spent.resize(kMaxThreads);
  measured = true;
  try {
    run(n_threads, todo);
  } catch (...) {
    measured = false;
    throw;
  }
  measured = false;
  std::chrono::nanoseconds busy{0};
  for (std::size_t i = 0; i < static_cast<std::size_t>(n_threads); ++i)
    busy += spent[i].in_task - spent[i].waiting;
  return std::chrono::duration_cast<PoolWidth::Clock::duration>(busy);
}

double ThreadPool::measure_busy_ms(int n_threads, const std::function<void(TaskContext&)>& task) {
  State& state = *state_;
  check_run(n_threads);
  const std::lock_guard lock(state.run_mutex);
  (void)state.start_workers(n_threads);
  state.n_wanted_threads = n_threads;
  n_threads = std::min(n_threads, static_cast<int>(state.workers.size()) + 1);
  return std::chrono::duration<double, std::milli>(state.run_measured(n_threads, task)).count();
}

void ThreadPool::set_limit(int n_threads) {
  const std::lock_guard lock(state_->run_mutex);
  state_->limit = n_threads;
}

AllThreads::AllThreads() noexcept { n_all.fetch_add(1, std::memory_order_relaxed); }
AllThreads::~AllThreads() { n_all.fetch_sub(1, std::memory_order_relaxed); }

// With run_mutex held, on so many threads, which are there.
void ThreadPool::State::run(int n_threads, const std::function<void(TaskContext&)>& todo) {
  // Not stored in vain: that would take its line from whoever used it last.
  if (next_chunk.load(std::memory_order_relaxed) != 0)
    next_chunk.store(0, std::memory_order_relaxed);
  if (n_threads == 1) {
    TaskContext context(0, 1, n_wanted_threads, this);
    execute(todo, context);
    return;
  }
  task = &todo;
  if (failed.load(std::memory_order_relaxed)) {  // the task before
    failed.store(false);
    n_failed_workers.store(0);
    n_arrived.store(0);
  }
  caller_done.store(false, std::memory_order_relaxed);
  const auto wanted = static_cast<std::uint32_t>(n_threads);
  all_finished += wanted - 1;
  if (const auto before = n_wanted.load(); wanted > before) {
    n_wanted.store(wanted);
  } else if (wanted < before) {
    n_wanted.prepare(wanted);
  }
  const auto count = (epoch.load() & ~kThreadMask) + kThreadMask + 1;
  epoch.store(count | wanted);
  TaskContext context(0, n_threads, n_wanted_threads, this);
  try {
    execute(todo, context);
    caller_done.store(true, std::memory_order_release);
  } catch (...) {
    note_failure();
    caller_done.store(true);
    attend(n_threads);
  }
  const auto all = [&](std::uint32_t now) { return now == all_finished; };
  n_finished.wait(WaitWord::kUntilCrowded, all, [&] { separate(n_threads); });
  if (failed.load(std::memory_order_relaxed))
    std::rethrow_exception(std::exchange(first_error, nullptr));
}

}  // namespace specdec
