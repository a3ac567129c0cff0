// Many requests at once on one model: they arrive at any time, share passes and what they have in
// common, and each gets exactly the tokens that it would get alone.
//
// A thread of its own decides, pass after pass: who is admitted, in the order of arrival, when the
// memory of the caches allows its longest course; a piece of the oldest prompt that is not read
// yet; one row of each request that generates; and the drafts that are worth their rows in this
// company.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "decode/round_info.h"
#include "engine/loaded_model.h"
#include "engine/session.h"
#include "engine/session_options.h"

namespace specdec {

// Whom a request tells what becomes of it, on the scheduler's thread, between passes. May not
// throw, nor wait for that thread. The last call is on_end() or on_error().
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  virtual void on_chunk(const OutputChunk& /*chunk*/) {}
  virtual void on_progress(int /*n_read*/, int /*n_total*/) {}
  [[nodiscard]] virtual bool wants_rounds() const { return false; }
  virtual void on_round(const RoundInfo& /*round*/) {}
  virtual void on_end(const GenerateResult& result) = 0;
  virtual void on_error(const std::exception_ptr& error) = 0;
};

struct SchedulerOptions {
  SessionOptions session;  // of every request; use_cache must be true
  int max_requests = 16;   // at work at once, 1..kMaxRequests
  int max_queue = 256;     // waiting for their turn, 0..
  std::uint64_t kv_bytes =
      0;  // of all caches; 0: what all requests can need, or half of what is free
  bool share_prefixes = true;  // keep the caches of texts that are over, as memory allows
  // All calls of sinks that follow one pass come from within one call of it: the place for a lock
  // that they need. It may leave them out, when nobody is left to be told.
  std::function<void(const std::function<void()>&)> around;
};

inline constexpr int kMaxRequests = 64;

struct SchedulerStats {
  // Now.
  int n_queued = 0, n_running = 0;
  std::uint64_t kv_bytes = 0, kv_used_bytes = 0;  // the limit; held by requests and kept prefixes
  std::size_t n_kv_pages = 0;
  int n_prefixes = 0;  // kept caches of the target
  // Since the start.
  std::int64_t n_submitted = 0, n_finished = 0, n_cancelled = 0, n_timed_out = 0, n_failed = 0;
  std::int64_t n_refused = 0;                         // the queue was full
  std::int64_t prompt_tokens = 0, cached_tokens = 0;  // of started requests; found in a cache
  std::int64_t n_prefix_hits = 0, n_evicted = 0;
  std::int64_t emitted = 0, drafted = 0, accepted = 0;  // of requests that have ended
  std::int64_t n_passes = 0, n_rows = 0;                // of the target
  double pass_ms = 0.0;
};

struct Job;

class Scheduler {
 public:
  using Ticket = std::shared_ptr<Job>;

  // Throws as Session(), and kInvalidArgument for options of its own.
  Scheduler(std::shared_ptr<const LoadedModel> target, const SchedulerOptions& options,
            const std::function<void()>& poll = {});
  // Ends as close() does. In a forked child, where its thread is not, it only leaves all as it is.
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // From any thread. The request's callbacks and cancel flag are not used. time_limit_s: from now
  // on, after which it ends with "timeout". Null: the queue is full. Throws what
  // Session::generate() throws for the request, before it is queued; kResource when its longest
  // course does not fit into kv_bytes; kClosed.
  [[nodiscard]] Ticket submit(GenerateRequest request, std::shared_ptr<RequestSink> sink,
                              std::optional<double> time_limit_s = {},
                              const std::function<void()>& poll = {});
  // What becomes of a request whose time was over before there was a place for it: "timeout", at
  // once. Throws as submit().
  [[nodiscard]] GenerateResult time_out(GenerateRequest request,
                                        const std::function<void()>& poll = {});
  // Ends it with "cancelled" within one pass, from any thread and whether or not the scheduler is
  // still there; again, or after its end: nothing.
  static void cancel(const Ticket& ticket);
  // Ends all with "cancelled", and the thread. No sink is called afterwards, unless a sink calls
  // it.
  void close();

  [[nodiscard]] SchedulerStats stats() const;
  [[nodiscard]] int n_ctx() const noexcept;
  [[nodiscard]] int max_requests() const noexcept;
  [[nodiscard]] const SessionOptions& options() const noexcept;  // as resolved
  [[nodiscard]] const LoadedModel& target() const noexcept;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // the thread holds it too
};

}  // namespace specdec
