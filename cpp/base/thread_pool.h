// One persistent pool per process, shared by every model: two spinning pools would starve two
// cores.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

namespace specdec {

// A task's view of the threads that run it.
class TaskContext {
 public:
  TaskContext(int thread, int n_threads, int n_wanted, void* state)
      : thread_(thread), n_threads_(n_threads), n_wanted_(n_wanted), state_(state) {}
  [[nodiscard]] int thread() const noexcept { return thread_; }
  [[nodiscard]] int n_threads() const noexcept { return n_threads_; }
  // That run() was asked for: what memory was made ready for.
  [[nodiscard]] int n_wanted() const noexcept { return n_wanted_; }
  // Waits until every thread of this task has arrived. Every thread must call it equally often.
  // Throws what only run() may catch, where another thread has thrown.
  void barrier();
  // Hands out 0, 1, 2, ... once each over all threads; starts at 0 for each run() and after each
  // barrier().
  [[nodiscard]] std::int64_t next_chunk() noexcept;

 private:
  int thread_;
  int n_threads_;
  int n_wanted_;
  void* state_;
};

class ThreadPool {
 public:
  static constexpr int kMaxThreads = 256;

  static ThreadPool& shared();

  // $SPECDEC_THREADS, else the physical cores this process may use, by affinity mask and the quota
  // of its control groups; at least 1. Throws if the variable is no number of threads.
  [[nodiscard]] static int default_n_threads();

  // Starts what n_threads threads need and returns how many there are: fewer where the system
  // refuses to start one (ulimit -u, pids.max), which is logged as a warning. Throws as run().
  int start(int n_threads);

  // Runs task on n_threads threads, as many as could be started, or fewer where others want the
  // processors and that is faster (PoolWidth); the caller is thread 0. Returns when all are done.
  // What one of them throws is thrown here then: memory that a thread needs for itself may run out.
  // Calls from several threads take turns.
  // Throws Error(kInvalidArgument) unless 1 <= n_threads <= 256, Error(kInternal) in a forked
  // child.
  void run(int n_threads, const std::function<void(TaskContext&)>& task);

  // For tests. The same with all of them; the processor time that the task took, without waiting
  // at barriers.
  double measure_busy_ms(int n_threads, const std::function<void(TaskContext&)>& task);
  // From now on tasks get at most so many; 0: as many as they want.
  void set_limit(int n_threads);

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

 private:
  friend class TaskContext;
  ThreadPool();
  struct State;
  std::unique_ptr<State> state_;
};

// While one lives, tasks get all the threads they want, whoever else wants the processors: for
// measurements that are told by the number of threads.
class AllThreads {
 public:
  AllThreads() noexcept;
  AllThreads(const AllThreads&) = delete;
  AllThreads& operator=(const AllThreads&) = delete;
  ~AllThreads();
};

}  // namespace specdec
