#include "engine/scheduler.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "decode/verifier.h"
#include "engine/memory.h"
#include "engine/pair.h"
#include "engine/request_parts.h"
#include "engine/scheduler_impl.h"

namespace specdec {
namespace {

constexpr const char* kIsClosed = "the engine is closed";

void check_range(const char* option, int value, int min, int max) {
  if (value >= min && value <= max) return;
  throw_invalid(std::string(option) + " must be " + std::to_string(min) + " to " +
                std::to_string(max) + ", got " + std::to_string(value));
}

}  // namespace

Scheduler::Impl::Impl(std::shared_ptr<const LoadedModel> model, const SchedulerOptions& given,
                      const std::function<void()>& poll)
    : target((model != nullptr ? void() : throw_invalid("a scheduler needs a model"),
              std::move(model))),
      options(given),
      pid(::getpid()),
      pass(target->model()) {
  check_range("max_requests", options.max_requests, 1, kMaxRequests);
  check_range("max_queue", options.max_queue, 0, 1 << 20);
  SessionOptions& session = options.session;
  session = resolve_options(*target, session);
  if (!session.use_cache) throw_invalid("requests that share passes need caches: use_cache=True");
  if (session.draft != nullptr) {
    require_pair(*target, *session.draft);
    draft_ctx = std::min(session.n_ctx, session.draft->model().config().usable_context());
  }
  const std::string warning = context_warning(target->model().config(), session.n_ctx);
  if (!warning.empty()) log_message(LogLevel::kWarning, warning);
  complete_drafters(*target, session, poll);

  const std::shared_ptr<DeviceBackend> gpu = gpu_of(*target, session);
  device_limit = gpu != nullptr ? gpu->free_bytes() : 0;
  const KvPageSize one = most_bytes(0, std::nullopt);
  kv_limit = options.kv_bytes;
  if (kv_limit == 0) {
    const std::uint64_t all =
        std::uint64_t{one.host_bytes} * static_cast<std::uint64_t>(options.max_requests);
    kv_limit = std::min(all, available_memory_bytes() / 2) + device_limit;
  }
  check_limits();
  // The count of what requests may need keeps within the limit; what is freed of one size and
  // waits for reuse must not add to it without end.
  arena = KvArena::create(
      {.budget_bytes = static_cast<std::size_t>(kv_limit + kv_limit / 4), .device = gpu});
  stats.kv_bytes = kv_limit;
}

Scheduler::Scheduler(std::shared_ptr<const LoadedModel> target, const SchedulerOptions& options,
                     const std::function<void()>& poll)
    : impl_(std::make_shared<Impl>(std::move(target), options, poll)) {
  // Signals are for threads that wait for them; not those of one's own faults, of which some have a
  // handler: a file that was cut off is met in a page that is not there.
  sigset_t blocked, before;
  sigfillset(&blocked);  // a macro on some systems, as the next one
  for (const int fault : {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS})
    sigdelset(&blocked, fault);
  ::pthread_sigmask(SIG_SETMASK, &blocked, &before);
  try {
    impl_->thread = std::thread([impl = impl_] { impl->run(); });
  } catch (...) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw Error(ErrorCode::kResource, "the system allows no more threads");
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Scheduler::~Scheduler() {
  if (::getpid() != impl_->pid) {
    (void)new std::shared_ptr<Impl>(std::move(impl_));  // for ever: nothing of it may be touched
    return;
  }
  close();
}

void Scheduler::close() {
  Impl& impl = *impl_;
  if (::getpid() != impl.pid) return;
  std::thread ending;
  {
    const std::lock_guard lock(impl.mutex);
    impl.closing = true;
    impl.stop.store(true);
    ending = std::move(impl.thread);
  }
  impl.wake.notify_all();
  if (!ending.joinable()) return;
  if (ending.get_id() == std::this_thread::get_id()) {
    ending.detach();  // it ends when the sink that called this has returned
  } else {
    ending.join();
  }
}

// Throws what is wrong with a request, before it is queued.
Scheduler::Ticket Scheduler::Impl::prepare(GenerateRequest request,
                                           std::optional<double> time_limit_s,
                                           const std::function<void()>& poll) const {
  const auto now = Job::Clock::now();
  auto job = std::make_shared<Job>();
  job->request = std::move(request);
  if (time_limit_s) {
    if (!(*time_limit_s >= 0.0 && *time_limit_s <= 1e9))
      throw_invalid("time_limit must be 0 to 1000000000 seconds");
    job->deadline = now + std::chrono::duration_cast<Job::Clock::duration>(
                              std::chrono::duration<double>(*time_limit_s));
  }
  const SessionOptions& session = options.session;
  job->decode = decode_request(*target, session, job->request, poll);
  job->decode.validate(target->model().config().n_tokens);
  (void)resolve_verifier(session.verifier, job->decode.sampling);
  if (const std::size_t n = job->decode.prompt.size();
      n >= static_cast<std::size_t>(session.n_ctx)) {
    throw Error(ErrorCode::kContextFull,
                "the prompt has " + std::to_string(n) + " tokens and the context " +
                    std::to_string(session.n_ctx) +
                    ": no room for one more token; shorten the prompt or use a larger n_ctx");
  }
  job->most_bytes = most_bytes(job->decode.prompt.size(), job->decode.max_tokens);
  require_memory(job->most_bytes);
  return job;
}

Scheduler::Ticket Scheduler::submit(GenerateRequest request, std::shared_ptr<RequestSink> sink,
                                    std::optional<double> time_limit_s,
                                    const std::function<void()>& poll) {
  Impl& impl = *impl_;
  SPECDEC_CHECK(sink != nullptr);
  Ticket job = impl.prepare(std::move(request), time_limit_s, poll);
  job->sink = std::move(sink);
  {
    const std::lock_guard lock(impl.mutex);
    if (impl.closing) throw Error(ErrorCode::kClosed, kIsClosed);
    if (impl.n_open >= impl.options.max_requests + impl.options.max_queue) {
      ++impl.stats.n_refused;
      return nullptr;
    }
    impl.queue.push_back(job);
    ++impl.n_open;
    ++impl.stats.n_submitted;
    ++impl.stats.n_queued;
  }
  impl.wake.notify_all();
  return job;
}

GenerateResult Scheduler::time_out(GenerateRequest request, const std::function<void()>& poll) {
  Impl& impl = *impl_;
  const Ticket job = impl.prepare(std::move(request), std::nullopt, poll);
  Impl::set_unstarted(*job, Impl::kTimeout);
  const std::lock_guard lock(impl.mutex);
  if (impl.closing) throw Error(ErrorCode::kClosed, kIsClosed);
  ++impl.stats.n_submitted;
  ++impl.stats.n_timed_out;
  return std::move(*job->result);
}

void Scheduler::cancel(const Ticket& ticket) {
  ticket->cancelled.store(true);  // while it is anywhere, turn follows upon turn
}

SchedulerStats Scheduler::stats() const {
  const std::lock_guard lock(impl_->mutex);
  SchedulerStats stats = impl_->stats;
  const KvArenaStats held = impl_->arena->stats();
  stats.kv_used_bytes = held.used_bytes + held.device_bytes;
  stats.n_kv_pages = held.n_used_pages;
  return stats;
}

int Scheduler::n_ctx() const noexcept { return impl_->options.session.n_ctx; }
int Scheduler::max_requests() const noexcept { return impl_->options.max_requests; }
const SessionOptions& Scheduler::options() const noexcept { return impl_->options.session; }
const LoadedModel& Scheduler::target() const noexcept { return *impl_->target; }

}  // namespace specdec
