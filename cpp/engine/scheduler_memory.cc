// The memory of the scheduler's caches: what a request may need, what is kept of those that are
// over, and what of it others go on from.
#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "engine/memory.h"
#include "engine/scheduler_impl.h"
#include "engine/text_memory.h"

namespace specdec {
namespace {

constexpr int kMinShared = 8;  // tokens of a common beginning that are worth a copy
// Rows of drafts are in the cache, too, until they are dropped.
constexpr int kDraftRows = kKvChunk;

KvPageSize bytes_of(const LoadedModel& model, const SessionOptions& options, int n_positions) {
  const KvShape shape = model.model().kv_shape(parse_kv_type(options.kv_type));
  const auto n_pages = static_cast<std::uint64_t>((n_positions + kKvChunk - 1) / kKvChunk);
  return {.host_bytes = static_cast<std::size_t>(shape.host_bytes(n_positions, kMaxBatchRows)),
          .device_bytes = static_cast<std::size_t>(n_pages * shape.page_size().device_bytes)};
}

std::uint64_t all_bytes(const KvPageSize& size) {
  return std::uint64_t{size.host_bytes} + size.device_bytes;
}

}  // namespace

KvPageSize Scheduler::Impl::most_bytes(std::size_t n_prompt, std::optional<int> max_tokens) const {
  const SessionOptions& session = options.session;
  const std::int64_t n_text =
      static_cast<std::int64_t>(n_prompt) + max_tokens.value_or(session.n_ctx);
  const auto positions = [&](int n_ctx) {
    return static_cast<int>(std::min<std::int64_t>(n_text + kDraftRows, n_ctx));
  };
  KvPageSize most = bytes_of(*target, session, positions(session.n_ctx));
  if (session.draft != nullptr) {
    const KvPageSize draft = bytes_of(*session.draft, session, positions(draft_ctx));
    most.host_bytes += draft.host_bytes;
    most.device_bytes += draft.device_bytes;
  }
  return most;
}

void Scheduler::Impl::require_memory(const KvPageSize& most) const {
  const std::uint64_t needed = all_bytes(most);
  if (needed <= kv_limit && most.device_bytes <= device_limit) return;
  const bool on_device = most.device_bytes > device_limit;
  throw Error(ErrorCode::kResource,
              "the request may need " + bytes_text(on_device ? most.device_bytes : needed) +
                  " of cache and there are " + bytes_text(on_device ? device_limit : kv_limit) +
                  (on_device ? " on the GPU" : " (kv_bytes)") +
                  " for all requests; use a shorter prompt, a smaller max_tokens or more memory");
}

// Known at the start: that every request would be refused, or those without max_tokens.
void Scheduler::Impl::check_limits() const {
  const KvPageSize least = most_bytes(1, 1);
  const KvPageSize whole = most_bytes(0, std::nullopt);
  const std::string needs = bytes_text(all_bytes(least)) + " for the shortest request, " +
                            bytes_text(all_bytes(whole)) + " for one that fills the context of " +
                            std::to_string(options.session.n_ctx) + " positions";
  if (least.device_bytes > device_limit)
    throw Error(ErrorCode::kResource, "the GPU has " + bytes_text(device_limit) +
                                          " left for caches, which need " + needs +
                                          "; put fewer layers there (n_gpu_layers)");
  if (all_bytes(least) > kv_limit) {
    if (options.kv_bytes != 0)
      throw_invalid("kv_bytes is " + bytes_text(kv_limit) + ", and caches need " + needs);
    throw Error(ErrorCode::kResource,
                "there are " + bytes_text(kv_limit) + " of memory for caches, which need " + needs);
  }
  if (all_bytes(whole) > kv_limit || whole.device_bytes > device_limit)
    log_message(LogLevel::kWarning,
                "requests that give no max_tokens are refused: there are " + bytes_text(kv_limit) +
                    " for caches, which need " + needs +
                    "; give more (kv_bytes), a shorter context (n_ctx) or max_tokens");
}

// Whether a request that may need so much can start. Kept caches make way, the oldest first.
bool Scheduler::Impl::make_room(const KvPageSize& most) {
  if (lanes.empty() && prefixes.size() == 0 && draft_prefixes.size() == 0) return true;
  std::uint64_t promised = all_bytes(most);
  for (const auto& lane : lanes) promised += lane->growth_bytes();
  while (true) {
    const KvArenaStats held = arena->stats();
    const bool fits = held.used_bytes + held.device_bytes + promised <= kv_limit &&
                      held.device_bytes + most.device_bytes <= device_limit;
    if (fits) return true;
    const bool dropped = prefixes.size() >= draft_prefixes.size() ? prefixes.evict() : false;
    if (!dropped && !draft_prefixes.evict()) return lanes.empty();
    ++counted.n_evicted;
  }
}

// A new cache, or a fork of one that begins with the same tokens: a kept one, or that of a request
// at work.
KvCache Scheduler::Impl::cache_for(std::span<const TokenId> tokens, bool of_draft) {
  PrefixTree& tree = of_draft ? draft_prefixes : prefixes;
  PrefixTree::Match best;
  if (options.share_prefixes) {
    best = tree.find(tokens);
    for (const auto& lane : lanes) {
      const KvCache* const cache = of_draft ? lane->draft_cache() : &lane->cache();
      if (cache == nullptr) continue;
      const std::span<const TokenId> held =
          of_draft ? lane->draft_cached_tokens() : lane->cached_tokens();
      const auto differs = std::mismatch(tokens.begin(), tokens.end(), held.begin(), held.end());
      const int n = cache->reachable(static_cast<int>(differs.first - tokens.begin()));
      if (n > best.length) best = {.cache = cache, .length = n};
    }
  }
  if (best.cache == nullptr || best.length < kMinShared) {
    const LoadedModel& model = of_draft ? *options.session.draft : *target;
    return KvCache(arena, model.model().kv_shape(parse_kv_type(options.session.kv_type)),
                   of_draft ? draft_ctx : options.session.n_ctx);
  }
  KvCache cache = best.cache->fork();
  cache.truncate(best.length);
  if (!of_draft) ++counted.n_prefix_hits;
  return cache;
}

// Of a request that is over.
void Scheduler::Impl::keep_caches(Lane& lane) {
  if (!options.share_prefixes) return;
  const auto keep = [](PrefixTree& tree, std::span<const TokenId> tokens, KvCache& cache) {
    if (static_cast<int>(tokens.size()) != cache.length() || cache.length() < kMinShared) return;
    tree.insert(tokens, std::move(cache));
  };
  keep(prefixes, lane.cached_tokens(), lane.cache());
  KvCache* const draft = lane.draft_cache();
  if (draft == nullptr) return;
  // Of the end of a long text it would be in the way: who is to begin with that?
  const std::span<const TokenId> held = lane.draft_cached_tokens(), text = lane.text();
  if (held.size() <= text.size() && std::equal(held.begin(), held.end(), text.begin()))
    keep(draft_prefixes, held, *draft);
}

// Until there is work, or the end. A memory of texts is saved when that is due.
void Scheduler::Impl::wait_for_work(std::unique_lock<std::mutex>& lock) {
  const auto has_work = [&] { return closing || !queue.empty() || !lanes.empty(); };
  while (!has_work()) {
    lock.unlock();  // whoever saves may hold it up
    const auto due = options.session.memory != nullptr ? options.session.memory->due()
                                                       : std::optional<Job::Clock::time_point>();
    lock.lock();
    if (has_work()) return;
    if (!due) {
      wake.wait(lock, has_work);
    } else if (!wake.wait_until(lock, *due, has_work)) {
      lock.unlock();
      save_memory(TextMemory::kSaveEvery);
      lock.lock();
    }
  }
}

void Scheduler::Impl::remember(Lane& lane) noexcept {
  const DecodeRequest& request = lane.job().decode;
  if (request.memory_key)
    options.session.memory->add(*request.memory_key, request.prompt, lane.result().token_ids,
                                lane.stop_token());
}

void Scheduler::Impl::save_memory(std::chrono::seconds every) noexcept {
  if (options.session.memory != nullptr) options.session.memory->save_if_due(every);
}

}  // namespace specdec
