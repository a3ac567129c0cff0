#include "engine/session.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <optional>
#include <utility>

#include "backend/device_backend.h"
#include "base/error.h"
#include "base/log.h"
#include "decode/control/controller.h"
#include "decode/decoder.h"
#include "decode/reread_scorer.h"
#include "decode/token_cache.h"
#include "engine/drafter_set.h"
#include "engine/model_scorer.h"
#include "engine/output_text.h"
#include "engine/pair.h"
#include "engine/request_parts.h"
#include "engine/session_calibration.h"
#include "engine/session_impl.h"
#include "engine/text_memory.h"
#include "kv/kv_cache.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"

namespace specdec {
namespace {

// Adds a request that has ended to the memory, if it is to be.
void remember(const SessionOptions& options, const DecodeRequest& request,
              const DecodeResult& result) {
  if (!request.memory_key) return;
  options.memory->add(*request.memory_key, request.prompt, result.token_ids, result.stop_token);
  options.memory->save_if_due();
}

}  // namespace

// As the decoding loop sees a scorer, with its cache or without.
TokenScorer* Session::Impl::seen(TokenScorer& with_cache) {
  if (options.use_cache) return &with_cache;
  rereaders.push_back(std::make_unique<RereadScorer>(with_cache));
  return rereaders.back().get();
}

void Session::Impl::count_rereads(DecodeStats& stats) const {
  for (const auto& rereader : rereaders) {
    (rereader == rereaders.front() ? stats.reread_tokens : stats.draft_reread_tokens) +=
        rereader->n_reread();
  }
}

// The scorers are there; builds what stands on them. Of a fork what its origin had learnt goes on.
void Session::Impl::make_decoder(const Impl* origin) {
  TokenScorer* const target_seen = seen(*scorer);
  // Without a cache nothing is kept.
  const bool goes_on = origin != nullptr && options.use_cache;
  std::span<const TokenId> draft_tokens;
  if (goes_on && origin->drafters->draft_cache() != nullptr)
    draft_tokens = origin->drafters->draft_cache()->tokens();
  drafters.emplace(
      options, *scorer,
      DrafterSet::Drafts{.model = draft_scorer.get(),
                         .draft_tokens = draft_tokens,
                         .head = head_scorer.get(),
                         .head_origin = goes_on ? origin->drafters->head_cache() : nullptr},
      [this](TokenScorer& with_cache) { return seen(with_cache); },
      origin != nullptr ? std::span<Drafter* const>(origin->drafters->list())
                        : std::span<Drafter* const>());
  if (options.adaptive && !controller) controller.emplace(drafters->traits());
  decoder = std::make_unique<Decoder>(
      *target_seen, drafters->list(), controller ? &*controller : nullptr,
      goes_on ? origin->decoder->cached_tokens() : std::span<const TokenId>());
}

Session::Session(std::shared_ptr<const LoadedModel> target, const SessionOptions& options,
                 const std::function<void()>& poll)
    : impl_(std::make_unique<Impl>()) {
  if (!target) throw_invalid("a session needs a model");
  impl_->options = resolve_options(*target, options);
  impl_->target = std::move(target);
  Impl& impl = *impl_;
  const LoadedModel* draft = impl.options.draft.get();
  if (draft != nullptr) require_pair(*impl.target, *draft);
  const std::string warning = context_warning(impl.target->model().config(), impl.options.n_ctx);
  if (!warning.empty()) log_message(LogLevel::kWarning, warning);

  complete_drafters(*impl.target, impl.options, poll);
  const KvType kv_type = parse_kv_type(impl.options.kv_type);
  const int n_ctx = impl.options.n_ctx;
  check_cache_memory(*impl.target, impl.options);
  impl.arena = KvArena::create({.device = gpu_of(*impl.target, impl.options)});
  impl.scorer = std::make_unique<ModelScorer>(
      impl.target, KvCache(impl.arena, impl.target->model().kv_shape(kv_type), n_ctx), n_ctx);
  if (draft != nullptr) {
    const int draft_ctx = std::min(n_ctx, draft->model().config().usable_context());
    KvCache cache(impl.arena, draft->model().kv_shape(kv_type), draft_ctx);
    if (draft->model().config().draft_head) {
      impl.head_scorer = std::make_unique<HeadScorer>(impl.options.draft, impl.target,
                                                      std::move(cache), draft_ctx);
    } else {
      impl.draft_scorer =
          std::make_unique<ModelScorer>(impl.options.draft, std::move(cache), draft_ctx);
    }
  }
  impl.make_decoder();
  const char* const trace = std::getenv("SPECDEC_ROUND_TRACE");
  if (trace != nullptr && *trace != 0) impl.trace.emplace(trace);
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

GenerateResult Session::generate(const GenerateRequest& request) {
  Impl& impl = *impl_;
  const BusyGuard guard(impl.busy, "generate()");
  std::atomic<bool> own{false};
  std::atomic<bool>& cancelled = request.cancel != nullptr ? *request.cancel : own;
  const CancelScope target_cancel(impl.scorer.get(), cancelled);
  const CancelScope draft_cancel(impl.draft_scorer.get(), cancelled);
  const CancelScope head_cancel(impl.head_scorer.get(), cancelled);

  const auto poll = [&] {
    if (request.should_cancel && request.should_cancel()) cancelled.store(true);
  };
  GenerateResult result;
  DecodeRequest decode;
  try {
    decode = decode_request(*impl.target, impl.options, request, [&] {
      poll();
      throw_if_cancelled(&cancelled);
    });
  } catch (const Error& error) {  // in the middle of a long text
    if (error.code() != ErrorCode::kCancelled) throw;
    result.finish_reason = to_string(FinishReason::kCancelled);
    result.seed = request.sampling.seed;
    return result;
  }
  const OutputPieces pieces(impl.target->tokenizer(), request.render_special);
  decode.pieces = &pieces;
  OutputText text(pieces);
  const auto deliver = [&](OutputChunk chunk) {
    result.text += chunk.text;
    if (request.on_chunk) request.on_chunk(chunk);
  };
  decode.on_chunk = [&](const Chunk& chunk) {
    deliver(text.push(chunk));
    poll();
    return !cancelled.load();
  };
  const auto n_prompt = static_cast<int>(decode.prompt.size());
  int n_told = -1;
  const auto progress = [&](int done) {
    poll();
    done = std::min(done, n_prompt);
    if (request.on_progress && done > n_told) request.on_progress(done, n_prompt);
    n_told = std::max(n_told, done);
  };
  decode.on_round = [&](const RoundInfo& round) {
    progress(n_prompt);  // the first pass reads the last token
    if (request.on_round) request.on_round(round);
  };
  // Without a cache the prompt is read by the first pass.
  decode.on_prompt = [&](int done, int) { progress(impl.options.use_cache ? done : 0); };
  decode.cancel = &cancelled;
  if (impl.trace) decode.trace = &*impl.trace;
  poll();

  const DeviceBackend* const gpu = impl.arena->device().get();
  const double gpu_ms = gpu != nullptr ? gpu->device_stats().device_ms : 0.0;
  impl.calibrate(poll);
  const PollScope target_poll(impl.scorer.get(), progress);
  const PollScope draft_poll(impl.draft_scorer.get(), [&](int) { poll(); });
  for (const auto& rereader : impl.rereaders) rereader->clear();
  DecodeResult decoded = impl.decoder->run(decode);
  impl.count_rereads(decoded.stats);
  if (decoded.finish_reason != FinishReason::kCancelled) progress(n_prompt);
  // What passes cost without a cache is of no use to others.
  if (impl.controller && impl.options.use_cache) impl.calibration.keep(*impl.controller);
  if (gpu != nullptr) decoded.stats.device_ms = gpu->device_stats().device_ms - gpu_ms;
  if (OutputChunk rest = text.flush(); !rest.text.empty()) deliver(std::move(rest));

  remember(impl.options, decode, decoded);
  put_result(std::move(decoded), result);
  result.n_prompt_tokens = n_prompt;
  result.seed = request.sampling.seed;
  result.stats.calibration_ms = impl.calibration.measured_ms();
  return result;
}

std::unique_ptr<Session> Session::fork() {
  Impl& impl = *impl_;
  const BusyGuard guard(impl.busy, "fork()");
  auto copy = std::make_unique<Impl>();
  copy->target = impl.target;
  copy->options = impl.options;
  copy->arena = impl.arena;
  copy->controller = impl.controller;
  copy->calibration = impl.calibration;
  copy->scorer = impl.scorer->fork();
  if (impl.draft_scorer) copy->draft_scorer = impl.draft_scorer->fork();
  if (impl.head_scorer) copy->head_scorer = impl.head_scorer->fork();
  copy->make_decoder(&impl);
  return std::unique_ptr<Session>(new Session(std::move(copy)));
}

void Session::reset() {
  const BusyGuard guard(impl_->busy, "reset()");
  impl_->decoder->reset();
}

std::vector<TokenId> Session::encode_prompt(const GenerateRequest& request) const {
  return prompt_tokens(*impl_->target, request, {});
}

std::vector<TokenId> Session::cached_tokens() const {
  const BusyGuard guard(impl_->busy, "cached_tokens()");
  if (!impl_->options.use_cache) return {};
  const std::span<const TokenId> tokens = impl_->decoder->cached_tokens();
  return {tokens.begin(), tokens.end()};
}

std::uint64_t Session::memory_bytes() const {
  const BusyGuard guard(impl_->busy, "memory_bytes()");
  const KvArenaStats kv = impl_->arena->stats();
  std::uint64_t n_bytes =
      kv.used_bytes + kv.free_bytes + kv.device_bytes + impl_->scorer->scratch_bytes();
  if (impl_->draft_scorer) n_bytes += impl_->draft_scorer->scratch_bytes();
  if (impl_->head_scorer) n_bytes += impl_->head_scorer->scratch_bytes();
  return n_bytes;
}

int Session::n_ctx() const noexcept { return impl_->options.n_ctx; }
bool Session::busy() const noexcept { return impl_->busy.load(); }
const SessionOptions& Session::options() const noexcept { return impl_->options; }
const LoadedModel& Session::target() const noexcept { return *impl_->target; }
const std::shared_ptr<const LoadedModel>& Session::shared_target() const noexcept {
  return impl_->target;
}

}  // namespace specdec
