// What the scheduler consists of; only its own sources include this.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "decode/control/controller.h"
#include "engine/lane.h"
#include "engine/reading_pace.h"
#include "engine/scheduler.h"
#include "engine/session_calibration.h"
#include "engine/shared_pass.h"
#include "kv/kv_arena.h"
#include "kv/prefix_tree.h"

namespace specdec {

struct Scheduler::Impl {
  Impl(std::shared_ptr<const LoadedModel> model, const SchedulerOptions& given,
       const std::function<void()>& poll);

  static constexpr const char* kTimeout = "timeout";
  // Of any thread. A request that can be queued, without its sink.
  [[nodiscard]] Ticket prepare(GenerateRequest request, std::optional<double> time_limit_s,
                               const std::function<void()>& poll) const;
  static void set_unstarted(Job& job, const char* reason) noexcept;

  // ---- before the thread exists, or whatever never changes
  std::shared_ptr<const LoadedModel> target;
  SchedulerOptions options;
  int draft_ctx = 0;  // positions of the draft model's caches
  std::shared_ptr<KvArena> arena;
  std::uint64_t kv_limit = 0;      // bytes of all caches
  std::uint64_t device_limit = 0;  // and of their parts on a device
  pid_t pid = 0;

  // ---- of all threads, with `mutex` held
  mutable std::mutex mutex;
  std::condition_variable wake;
  std::deque<Ticket> queue;
  int n_open = 0;  // submitted and not ended
  bool closing = false;
  SchedulerStats stats;

  std::atomic<bool> stop{false};  // passes are given up

  // ---- of the scheduler's thread
  std::vector<std::unique_ptr<Lane>> lanes;  // in the order of their start
  std::size_t n_turns = 0;
  PrefixTree prefixes, draft_prefixes;
  std::optional<Controller> learnt;  // by requests that have ended; where drafting adapts
  SessionCalibration calibration;
  bool calibrated = false, to_keep = false;
  std::vector<std::unique_ptr<Drafter>> keepers;
  CostModel cost;
  SharedPass pass;
  ReadingPace pace;
  Telling telling;
  SchedulerStats counted;  // what is added to `stats` after a turn

  std::thread thread;

  void run() noexcept;
  void wait_for_work(std::unique_lock<std::mutex>& lock);
  void turn() noexcept;
  void deliver() noexcept;
  void end_all() noexcept;

  // Requests that are to end before their time.
  [[nodiscard]] static const char* reason_to_end(const Job& job, Job::Clock::time_point now);
  void end_early();
  void tell_unstarted(const Ticket& job, const char* reason) noexcept;

  // Lanes.
  void admit();
  void start(const Ticket& job) noexcept;
  void calibrate(Lane& lane);
  [[nodiscard]] int reading_rows() const;
  [[nodiscard]] bool is_being_read(std::span<const TokenId> prompt) const;
  [[nodiscard]] int lay_out_prompts(std::vector<Lane*> reading, std::vector<Lane*>& order);
  [[nodiscard]] std::vector<Lane*> lay_out();
  bool lay_out(Lane& lane, const Company& company, int most_reading);
  void pass_over(std::span<Lane* const> order);
  void on_error(Lane& lane, const std::exception_ptr& error) noexcept;
  void end(Lane& lane, const char* reason) noexcept;
  void learn_from(Lane& lane);
  void remove_ended();

  // Memory (scheduler_memory.cc).
  [[nodiscard]] KvPageSize most_bytes(std::size_t n_prompt, std::optional<int> max_tokens) const;
  void require_memory(const KvPageSize& most) const;
  void check_limits() const;
  [[nodiscard]] bool make_room(const KvPageSize& most);
  [[nodiscard]] KvCache cache_for(std::span<const TokenId> tokens, bool of_draft);
  void keep_caches(Lane& lane);
  // And of texts, where there is one for drafts.
  void remember(Lane& lane) noexcept;
  void save_memory(std::chrono::seconds every) noexcept;
};

}  // namespace specdec
