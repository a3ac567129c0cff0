// What the scheduler's thread does, turn by turn: one pass over the rows of all requests.
#include <algorithm>
#include <utility>

#include "base/error.h"
#include "engine/scheduler_impl.h"
#include "engine/text_memory.h"

namespace specdec {
namespace {

// Beside rows of requests that generate, prompts get no more than half of the time that a piece
// takes by itself.
constexpr int kLeastPiece = 16;
constexpr int kMinAwaited = 16;  // tokens of a common beginning that are worth waiting for
constexpr std::chrono::seconds kSaveWhileBusy{60};
constexpr const char* kCancelled = "cancelled";

bool is_cancelled(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& e) {
    return e.code() == ErrorCode::kCancelled;
  } catch (...) {
    return false;
  }
}

}  // namespace

void Scheduler::Impl::run() noexcept {
  while (true) {
    {
      std::unique_lock lock(mutex);
      if (lanes.empty() && queue.empty() && to_keep && learnt) {
        lock.unlock();
        calibration.keep(*learnt);
        to_keep = false;
        lock.lock();
      }
      wait_for_work(lock);
      if (closing) break;
    }
    turn();
    deliver();
    save_memory(kSaveWhileBusy);
  }
  end_all();
  deliver();
  if (to_keep && learnt) calibration.keep(*learnt);
  if (options.session.memory != nullptr) options.session.memory->save_at_end();
}

void Scheduler::Impl::turn() noexcept {
  counted = {};
  const std::int64_t n_passes = pass.n_passes(), n_rows = pass.n_rows();
  const double pass_ms = pass.pass_ms();
  try {
    end_early();
    admit();
    const std::vector<Lane*> order = lay_out();
    if (!order.empty()) pass_over(order);
  } catch (...) {  // no memory for the turn itself
    const std::exception_ptr error = std::current_exception();
    if (!is_cancelled(error))
      for (const auto& lane : lanes)
        if (!lane->over()) on_error(*lane, error);
  }
  remove_ended();
  const std::lock_guard lock(mutex);
  stats.n_running = static_cast<int>(lanes.size());
  stats.n_prefixes = static_cast<int>(prefixes.size());
  stats.n_passes += pass.n_passes() - n_passes;
  stats.n_rows += pass.n_rows() - n_rows;
  stats.pass_ms += pass.pass_ms() - pass_ms;
  stats.n_finished += counted.n_finished;
  stats.n_cancelled += counted.n_cancelled;
  stats.n_timed_out += counted.n_timed_out;
  stats.n_failed += counted.n_failed;
  stats.prompt_tokens += counted.prompt_tokens;
  stats.cached_tokens += counted.cached_tokens;
  stats.n_prefix_hits += counted.n_prefix_hits;
  stats.n_evicted += counted.n_evicted;
  stats.emitted += counted.emitted;
  stats.drafted += counted.drafted;
  stats.accepted += counted.accepted;
  n_open -= static_cast<int>(counted.n_finished + counted.n_cancelled + counted.n_timed_out +
                             counted.n_failed);
}

void Scheduler::Impl::deliver() noexcept {
  if (telling.empty()) return;
  Telling now = std::move(telling);
  // Small enough to need no memory. Sinks may need what `around` gives to be freed, too.
  const std::function<void()> all = [&now] { now.tell_all(); };
  if (options.around) {
    options.around(all);
  } else {
    all();
  }
}

// After close().
void Scheduler::Impl::end_all() noexcept {
  for (const auto& lane : lanes) {
    try {
      lane->finish(kCancelled);
    } catch (...) {
      lane->fail(std::current_exception());
    }
  }
  {
    const std::lock_guard lock(mutex);
    stats.n_cancelled += static_cast<std::int64_t>(queue.size() + lanes.size());
    stats.n_queued = 0;
    stats.n_running = 0;
    n_open = 0;
    for (const Ticket& job : queue) tell_unstarted(job, kCancelled);
    queue.clear();
  }
  lanes.clear();
  prefixes.clear();
  draft_prefixes.clear();
  arena->release_free();
}

const char* Scheduler::Impl::reason_to_end(const Job& job, Job::Clock::time_point now) {
  if (job.cancelled.load()) return kCancelled;
  return job.deadline && now >= *job.deadline ? kTimeout : nullptr;
}

// The reason is short enough to need no memory.
void Scheduler::Impl::set_unstarted(Job& job, const char* reason) noexcept {
  GenerateResult& result = *job.result;
  result.finish_reason = reason;
  result.n_prompt_tokens = static_cast<int>(job.decode.prompt.size());
  result.seed = job.request.sampling.seed;
}

void Scheduler::Impl::tell_unstarted(const Ticket& job, const char* reason) noexcept {
  set_unstarted(*job, reason);
  telling.end(job);
}

void Scheduler::Impl::end_early() {
  const auto now = Job::Clock::now();
  for (const auto& lane : lanes) {
    if (const char* reason = reason_to_end(lane->job(), now)) end(*lane, reason);
  }
  remove_ended();
  const std::lock_guard lock(mutex);
  std::erase_if(queue, [&](const Ticket& job) {
    const char* const reason = reason_to_end(*job, now);
    if (reason == nullptr) return false;
    tell_unstarted(job, reason);
    ++(reason == kCancelled ? counted.n_cancelled : counted.n_timed_out);
    return true;
  });
  stats.n_queued = static_cast<int>(queue.size());
}

// Rows of prompts in the next pass.
int Scheduler::Impl::reading_rows() const {
  const bool others =
      std::any_of(lanes.begin(), lanes.end(), [](const auto& lane) { return !lane->reads(); });
  return others ? std::max(pace.rows() / 2, kLeastPiece) : pace.rows();
}

// Whether a prompt goes on like one that is being read, beyond what is read of that so far.
bool Scheduler::Impl::is_being_read(std::span<const TokenId> prompt) const {
  if (!options.share_prefixes) return false;
  return std::any_of(lanes.begin(), lanes.end(), [&](const auto& lane) {
    if (!lane->reads()) return false;
    const std::vector<TokenId>& other = lane->job().decode.prompt;
    const auto differs = std::mismatch(prompt.begin(), prompt.end(), other.begin(), other.end());
    const auto n_common = static_cast<int>(differs.first - prompt.begin());
    return n_common >= lane->cache().length() + kMinAwaited;
  });
}

// In the order of arrival. Who begins like a prompt that is being read waits for that.
void Scheduler::Impl::admit() {
  while (lanes.size() < static_cast<std::size_t>(options.max_requests)) {
    Ticket next;
    {
      const std::lock_guard lock(mutex);
      if (queue.empty() || closing) return;
      next = queue.front();
    }
    if (is_being_read(next->decode.prompt) || !make_room(next->most_bytes)) return;
    {
      const std::lock_guard lock(mutex);
      queue.pop_front();
      stats.n_queued = static_cast<int>(queue.size());
    }
    start(next);
  }
}

void Scheduler::Impl::start(const Ticket& job) noexcept {
  try {
    const std::span<const TokenId> prompt = job->decode.prompt;
    const std::span<const TokenId> unread = prompt.first(prompt.size() - 1);
    std::vector<Drafter*> origin;
    for (const auto& keeper : keepers) origin.push_back(keeper.get());
    LaneStart begin{.target = target,
                    .options = &options.session,
                    .cache = cache_for(unread, false),
                    .draft_cache = std::nullopt,
                    .draft_ctx = draft_ctx,
                    .keepers = origin};
    if (options.session.draft != nullptr) {
      const auto n = std::min(unread.size(), static_cast<std::size_t>(std::max(draft_ctx - 1, 0)));
      begin.draft_cache = cache_for(unread.first(n), true);
    }
    auto lane = std::make_unique<Lane>(job, std::move(begin), telling);
    if (options.session.adaptive) calibrate(*lane);
    lane->begin();
    counted.prompt_tokens += static_cast<std::int64_t>(prompt.size());
    counted.cached_tokens += lane->cache().length();
    lanes.push_back(std::move(lane));
  } catch (...) {
    const std::exception_ptr error = std::current_exception();
    if (is_cancelled(error)) {
      tell_unstarted(job, kCancelled);
      ++counted.n_cancelled;
    } else {
      telling.end(job, error);
      ++counted.n_failed;
    }
  }
}

// Before the first request that needs it: what passes cost.
void Scheduler::Impl::calibrate(Lane& lane) {
  if (!learnt) learnt.emplace(lane.drafters().traits());
  if (!calibrated) {
    calibration.prepare(*learnt,
                        {.target = *target,
                         .draft = options.session.draft.get(),
                         .target_scorer = lane.scorer(),
                         .draft_scorer = lane.draft_scorer(),
                         .head_scorer = lane.head_scorer(),
                         .n_draft_layers = lane.drafters().n_draft_layers(),
                         .kv_type = parse_kv_type(options.session.kv_type),
                         .head_tokens = draft_head_tokens(options.session)},
                        true, [&] {
                          throw_if_cancelled(&stop);
                          throw_if_cancelled(&lane.job().cancelled);
                        });
    calibrated = learnt->target_cost().known();
    cost = learnt->target_cost();
  }
  lane.adapt(*learnt);
}

// False: it has ended by that.
bool Scheduler::Impl::lay_out(Lane& lane, const Company& company, int most_reading) {
  if (Controller* const controller = lane.controller()) {
    controller->target_cost() = cost;
    controller->set_company(company);
  }
  try {
    lane.lay_out(most_reading);
  } catch (...) {
    on_error(lane, std::current_exception());
  }
  return !lane.over();
}

// Half of the rows are for the oldest prompt, so that it is read in the end; the others are for
// those that soon are. Adds them to `order`, and returns how many rows they have.
int Scheduler::Impl::lay_out_prompts(std::vector<Lane*> reading, std::vector<Lane*>& order) {
  if (reading.empty()) return 0;
  const int most = reading_rows();
  std::stable_sort(reading.begin() + 1, reading.end(),
                   [](const Lane* a, const Lane* b) { return a->n_unread() < b->n_unread(); });
  int n_younger = 0;
  for (std::size_t i = 1; i < reading.size(); ++i)
    n_younger = std::min(n_younger + reading[i]->n_unread(), most / 2);
  int n_rows = 0;
  for (Lane* const lane : reading) {
    const int left = most - n_rows - (lane == reading[0] ? n_younger : 0);
    if (left < 1) break;
    if (!lay_out(*lane, {}, left)) continue;
    n_rows += static_cast<int>(lane->rows().batch.tokens.size());
    order.push_back(lane);
  }
  return n_rows;
}

// Those that read; behind them those that generate, another one first each time.
std::vector<Lane*> Scheduler::Impl::lay_out() {
  std::vector<Lane*> order, reading, generating;
  for (const auto& lane : lanes) {
    if (lane->over()) continue;
    if (lane->reads()) {
      reading.push_back(lane.get());
    } else if (lane->ended()) {
      end(*lane, nullptr);
    } else {
      generating.push_back(lane.get());
    }
  }
  const int n_reading = lay_out_prompts(std::move(reading), order);
  if (!generating.empty()) {
    const auto first = static_cast<std::ptrdiff_t>(n_turns++ % generating.size());
    std::rotate(generating.begin(), generating.begin() + first, generating.end());
  }
  const bool shares = target->model().device() == nullptr;
  const auto n_others = static_cast<int>(generating.size()) - 1;
  Company company{.n_others = shares ? n_others : 0,
                  .n_rows = shares ? n_others : 0,
                  .n_tokens = static_cast<double>(shares ? n_others : 0),
                  .n_reading = shares ? n_reading : 0};
  for (Lane* const lane : generating) {
    if (!lay_out(*lane, company, kMaxBatchRows)) continue;
    order.push_back(lane);
    // The next one has this one beside it as it is, instead of as one row.
    const auto n_rows = static_cast<int>(lane->rows().batch.tokens.size());
    if (!shares || n_rows == 1) continue;
    company.n_rows += n_rows - 1;
    company.n_tokens += std::max(lane->usual_tokens() - 1.0, 0.0);
  }
  return order;
}

void Scheduler::Impl::pass_over(std::span<Lane* const> order) {
  std::size_t n_rows = 0;
  for (const Lane* lane : order) n_rows += lane->rows().batch.tokens.size();
  pace.time(n_rows, [&] {
    pass.run(order, cost, stop,
             [this](Lane& lane, const std::exception_ptr& error) { on_error(lane, error); });
  });
  for (Lane* const lane : order)
    if (!lane->over() && lane->ended()) end(*lane, nullptr);
}

void Scheduler::Impl::on_error(Lane& lane, const std::exception_ptr& error) noexcept {
  if (is_cancelled(error)) {
    end(lane, kCancelled);
    return;
  }
  lane.fail(error);
  ++counted.n_failed;
}

void Scheduler::Impl::end(Lane& lane, const char* reason) noexcept {
  if (lane.over()) return;
  try {
    lane.finish(reason);
  } catch (...) {
    lane.fail(std::current_exception());
    ++counted.n_failed;
    return;
  }
  const GenerateResult& result = lane.result();
  ++(result.finish_reason == kCancelled ? counted.n_cancelled
     : result.finish_reason == kTimeout ? counted.n_timed_out
                                        : counted.n_finished);
  counted.emitted += result.stats.emitted;
  counted.drafted += result.stats.drafted;
  counted.accepted += result.stats.accepted;
  try {
    remember(lane);
    learn_from(lane);
    keep_caches(lane);
  } catch (...) {  // no memory: nothing is kept
  }
}

// Costs are known already; of what was earned and lost, what came with this request.
void Scheduler::Impl::learn_from(Lane& lane) {
  lane.drafters().release_keepers(keepers);
  if (lane.controller() == nullptr || !learnt) return;
  Controller next = *lane.controller();  // complete, before it takes the place of the other one
  next.target_cost() = cost;
  next.end_beside(learnt->state());
  learnt = std::move(next);
  to_keep = true;
}

void Scheduler::Impl::remove_ended() {
  std::erase_if(lanes, [](const auto& lane) { return lane->over(); });
}

}  // namespace specdec
