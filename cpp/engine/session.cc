#include "engine/session.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "backend/device_backend.h"
#include "base/error.h"
#include "base/log.h"
#include "decode/control/controller.h"
#include "decode/decoder.h"
#include "decode/drafter.h"
#include "decode/reread_scorer.h"
#include "decode/token_cache.h"
#include "decode/verifier.h"
#include "engine/calibration.h"
#include "engine/layer_skip_scorer.h"
#include "engine/memory.h"
#include "engine/model_scorer.h"
#include "engine/output_text.h"
#include "engine/pair.h"
#include "gguf/reader.h"
#include "kv/kv_cache.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"

namespace specdec {
namespace {

[[noreturn]] void bad_choice(const char* option, const std::string& value,
                             const std::vector<std::string>& choices) {
  std::string text = std::string(option) + " must be one of";
  for (const std::string& choice : choices) text += " " + choice;
  throw_invalid(text + ", got '" + printable(value) + "'");
}

void check_choice(const char* option, const std::string& value,
                  const std::vector<std::string>& choices) {
  if (std::find(choices.begin(), choices.end(), value) == choices.end())
    bad_choice(option, value, choices);
}

void check_range(const char* option, int value, int min, int max) {
  if (value < min || value > max) {
    throw_invalid(std::string(option) + " must be " + std::to_string(min) + " to " +
                  std::to_string(max) + ", got " + std::to_string(value));
  }
}

constexpr std::string_view kHeadTokensKey = "specdec.draft.head_tokens";

// Of the target's and the draft's cache, without layers on a GPU.
std::uint64_t kv_bytes_per_token(const LoadedModel& target, const SessionOptions& options,
                                 KvType type) {
  const auto of = [type](const LoadedModel& model) {
    return model.model().kv_shape(type).page_size().host_bytes / kKvChunk;
  };
  return of(target) + (options.draft ? of(*options.draft) : 0);
}

std::shared_ptr<DeviceBackend> gpu_of(const LoadedModel& target, const SessionOptions& options) {
  const auto& gpu = target.gpu();
  if (!options.draft || options.draft->gpu() == nullptr) return gpu;
  if (gpu != nullptr && gpu != options.draft->gpu())
    throw_invalid("target and draft model are on different GPUs; load both on the same one");
  return options.draft->gpu();
}

// What a GPU has reserved for caches must hold those of n_ctx positions.
void check_gpu_memory(const LoadedModel& target, const SessionOptions& options, KvType type) {
  const std::shared_ptr<DeviceBackend> gpu = gpu_of(target, options);
  if (gpu == nullptr) return;
  const auto n_pages = static_cast<std::uint64_t>((options.n_ctx + kKvChunk - 1) / kKvChunk);
  std::uint64_t needed = n_pages * target.model().kv_shape(type).page_size().device_bytes;
  if (options.draft)
    needed += n_pages * options.draft->model().kv_shape(type).page_size().device_bytes;
  const std::uint64_t available = gpu->free_bytes();
  if (needed <= available) return;
  throw Error(ErrorCode::kResource,
              "the KV cache for n_ctx " + std::to_string(options.n_ctx) + " needs " +
                  bytes_text(needed) + " on the GPU, and " + bytes_text(available) +
                  " of what the models reserved are free; load them with n_ctx=" +
                  std::to_string(options.n_ctx) +
                  ", end other sessions, or use a smaller n_ctx or kv_type q8_0");
}

// Pages are allocated as they fill; better to say at once that they cannot all be had.
void check_memory(const LoadedModel& target, const SessionOptions& options, KvType type) {
  const std::uint64_t needed =
      kv_bytes_per_token(target, options, type) * static_cast<std::uint64_t>(options.n_ctx);
  const std::uint64_t available = available_memory_bytes();
  if (needed <= available) return;
  throw Error(ErrorCode::kResource, "the KV cache for n_ctx " + std::to_string(options.n_ctx) +
                                        " needs " + std::to_string(needed >> 20) + " MiB and " +
                                        std::to_string(available >> 20) +
                                        " MiB are available; use a smaller n_ctx or kv_type q8_0");
}

std::vector<std::string> split_names(const std::string& list) {
  std::vector<std::string> names;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t comma = std::min(list.find(',', begin), list.size());
    names.push_back(list.substr(begin, comma - begin));
    begin = comma + 1;
  }
  return names;
}

const DraftModelOptions* draft_model_of(const SessionOptions& options) {
  for (const DrafterOptions& drafter : options.drafters)
    if (const auto* model = std::get_if<DraftModelOptions>(&drafter)) return model;
  return nullptr;
}

// What contradicts itself in a list, and whether the length of drafts is adapted.
void resolve_drafters(SessionOptions& options) {
  std::size_t n_fixed = 0;
  for (std::size_t i = 0; i < options.drafters.size(); ++i) {
    for (std::size_t k = 0; k < i; ++k) {
      if (options.drafters[k].index() == options.drafters[i].index())
        throw_invalid("drafter '" + std::string(drafter_name(options.drafters[i])) +
                      "' is in the list twice");
    }
    if (draft_lengths(options.drafters[i]).gamma) ++n_fixed;
  }
  if (n_fixed > 0 && n_fixed < options.drafters.size())
    throw_invalid(
        "gamma fixes the length of drafts: give it to all drafters of a list, or to none");
  options.adaptive = (options.adaptive || options.drafters.size() > 1) && n_fixed == 0 &&
                     !options.drafters.empty();
  if (draft_model_of(options) == nullptr) {
    options.draft.reset();
  } else if (!options.draft) {
    throw_invalid("drafter 'model' needs a draft model");
  }
}

// Options with every "auto" of construction time decided, or Error(kInvalidArgument).
SessionOptions resolve(const LoadedModel& target, SessionOptions options) {
  check_choice("verifier", options.verifier, verifier_names());
  resolve_drafters(options);
  if (options.kv_type.empty()) options.kv_type = kv_type_name(target.kv_type());
  const KvType kv_type = parse_kv_type(options.kv_type);

  const int context_length = target.model().config().context_length;
  if (options.n_ctx == 0) {
    const std::uint64_t per_token = kv_bytes_per_token(target, options, kv_type);
    // Half of what is free: the caches are not the only thing that will grow.
    const std::uint64_t affordable =
        available_memory_bytes() / 2 / std::max<std::uint64_t>(per_token, 1);
    options.n_ctx = std::min(context_length, kDefaultContext);
    options.n_ctx = static_cast<int>(std::min<std::uint64_t>(
        static_cast<std::uint64_t>(options.n_ctx), std::max<std::uint64_t>(affordable, 256)));
    if (target.n_ctx() > 0) {
      check_range("n_ctx", target.n_ctx(), 1, context_length);
      options.n_ctx = target.n_ctx();
    }
    // What was reserved on a GPU decides too.
    for (const LoadedModel* model : {&target, static_cast<const LoadedModel*>(options.draft.get())})
      if (model != nullptr && model->info().n_gpu_layers > 0)
        options.n_ctx = std::min(options.n_ctx, static_cast<int>(model->info().gpu_context));
  } else {
    check_range("n_ctx", options.n_ctx, 1, kMaxContextLength);
  }
  return options;
}

// Clears the flag on every way out.
class BusyGuard {
 public:
  BusyGuard(std::atomic<bool>& busy, const char* what) : busy_(busy) {
    if (busy_.exchange(true)) {
      throw Error(ErrorCode::kBusy, std::string("the session is already generating: ") + what +
                                        " must wait; use one session per thread");
    }
  }
  ~BusyGuard() { busy_.store(false); }
  BusyGuard(const BusyGuard&) = delete;
  BusyGuard& operator=(const BusyGuard&) = delete;

 private:
  std::atomic<bool>& busy_;
};

}  // namespace

const std::vector<std::string>& drafter_names() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> names = {"none"};
    for (const DrafterInfo& info : all_drafters()) names.emplace_back(info.name);
    names.emplace_back("auto");
    return names;
  }();
  return kNames;
}

std::vector<DrafterOptions> parse_drafters(const std::string& names, bool has_draft_model) {
  if (names == "none") return {};
  std::vector<std::string> list = split_names(names);
  if (names == "auto") {
    list = {"ngram", "suffix"};
    if (has_draft_model) list.insert(list.begin(), "model");
  }
  std::vector<DrafterOptions> drafters;
  for (const std::string& name : list) {
    check_choice(list.size() > 1 ? "each drafter of a list" : "drafter", name, drafter_names());
    if (name == "none" || name == "auto")
      throw_invalid("drafter '" + name + "' stands alone, got '" + printable(names) + "'");
    drafters.push_back(default_drafter_options(name));
  }
  return drafters;
}

const std::vector<std::string>& verifier_names() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> names = {"auto"};
    for (const Verifier* verifier : all_verifiers()) names.emplace_back(verifier->name());
    return names;
  }();
  return kNames;
}

struct Session::Impl {
  std::shared_ptr<const LoadedModel> target;
  SessionOptions options;
  std::shared_ptr<KvArena> arena;
  // Declared in the order of dependence: destroyed in reverse.
  std::atomic<bool> busy{false};
  std::unique_ptr<ModelScorer> scorer, draft_scorer;
  std::unique_ptr<LayerSkipScorer> layer_scorer;
  std::vector<std::unique_ptr<RereadScorer>> rereaders;  // without a cache; the target's first
  std::vector<std::unique_ptr<Drafter>> drafters;
  std::optional<Controller> controller;  // of adaptive drafting
  std::optional<CalibrationFile> calibration_file;
  std::optional<Calibration> calibration;
  std::unique_ptr<Decoder> decoder;

  void fill_head_tokens();
  void make_corpus(const std::function<void()>& poll);
  void make_decoder(const Impl* origin = nullptr);
  [[nodiscard]] TokenScorer* seen(TokenScorer* with_cache);
  void count_rereads(DecodeStats& stats) const;
  void calibrate_once(const std::function<void()>& poll);
  void keep_calibration() noexcept;
  using Poll = std::function<void()>;
  [[nodiscard]] std::vector<TokenId> prompt_tokens(const GenerateRequest& request,
                                                   const Poll& poll) const;
  [[nodiscard]] DecodeRequest decode_request(const GenerateRequest& request,
                                             const Poll& poll) const;
};

// What the draft was made for, if its file says so.
void Session::Impl::fill_head_tokens() {
  for (DrafterOptions& drafter : options.drafters) {
    auto* model = std::get_if<DraftModelOptions>(&drafter);
    if (model == nullptr || model->head_tokens) continue;
    const std::uint64_t kept = options.draft->file().get_u64(kHeadTokensKey, 0);
    if (kept > 0 && kept < (1U << 30)) model->head_tokens = static_cast<int>(kept);
  }
}

// Shared by forks.
void Session::Impl::make_corpus(const std::function<void()>& poll) {
  for (DrafterOptions& drafter : options.drafters) {
    auto* suffix = std::get_if<SuffixOptions>(&drafter);
    if (suffix == nullptr || suffix->corpus_text.empty()) continue;
    suffix->corpus =
        make_suffix_corpus(target->encode({{suffix->corpus_text, false}}, 0, poll), poll);
    suffix->corpus_text.clear();
  }
}

// As the decoding loop sees a scorer (null: none), with its cache or without.
TokenScorer* Session::Impl::seen(TokenScorer* with_cache) {
  if (options.use_cache || with_cache == nullptr) return with_cache;
  rereaders.push_back(std::make_unique<RereadScorer>(*with_cache));
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
  std::vector<Drafter*> list;
  std::vector<SourceTraits> traits;
  TokenScorer* const target_seen = seen(scorer.get());
  DrafterModels models{.draft = seen(draft_scorer.get()), .draft_cached = {}, .layers = nullptr};
  if (draft_scorer) models.draft_cached = draft_scorer->tokens();
  for (std::size_t i = 0; i < options.drafters.size(); ++i) {
    const DrafterOptions& drafter = options.drafters[i];
    if (const auto* layers = std::get_if<LayerSkipOptions>(&drafter)) {
      const int n_layers = layers->n_layers;
      layer_scorer = std::make_unique<LayerSkipScorer>(
          *scorer, n_layers != 0 ? n_layers : std::max(scorer->n_layers() / 4, 1));
      models.layers = seen(layer_scorer.get());
    }
    std::unique_ptr<Drafter> made;
    if (origin != nullptr) made = origin->drafters[i]->fork();
    if (made == nullptr) made = make_drafter(drafter, models);
    list.push_back(made.get());
    traits.push_back({.name = std::string(made->name()), .lookup = !made->uses_model()});
    drafters.push_back(std::move(made));
  }
  if (options.adaptive && !controller) controller.emplace(std::move(traits));
  decoder = std::make_unique<Decoder>(*target_seen, std::move(list),
                                      controller ? &*controller : nullptr, scorer->tokens());
}

// Before the first request, because it feeds the caches. A request that is cancelled meanwhile goes
// on uncalibrated, to its end; the next one measures again.
void Session::Impl::calibrate_once(const std::function<void()>& poll) {
  if (!controller || calibration || scorer->length() > 0) return;
  if (draft_scorer && draft_scorer->length() > 0) return;
  calibration.emplace();
  const CalibrationFile& file =
      calibration_file.emplace(*target, options.draft.get(), parse_kv_type(options.kv_type));
  const int n_layers = layer_scorer ? layer_scorer->n_layers() : 0;
  const bool is_there = file.read(*calibration) && calibration->draft.empty() == !draft_scorer;
  if (!is_there || (n_layers > 0 && calibration->n_draft_layers != n_layers)) {
    // Of other layers than the last time; what was earned and lost before still counts.
    const ControllerState earned = is_there ? calibration->state : ControllerState();
    const auto forget = [&] {
      calibration.reset();
      scorer->truncate(0);
      if (draft_scorer) draft_scorer->truncate(0);
    };
    try {
      *calibration = calibrate(*scorer, draft_scorer.get(), n_layers, poll);
    } catch (const Error& error) {
      forget();
      if (error.code() == ErrorCode::kCancelled) return;
      throw;
    } catch (...) {
      forget();
      throw;
    }
    calibration->state = earned;
    file.write(*calibration);
  }
  controller->target_cost().calibrate(calibration->target);
  for (int i = 0; i < controller->n_sources(); ++i) {
    if (controller->traits(i).name == "model")
      controller->source_cost(i).calibrate(calibration->draft);
    if (controller->traits(i).name == "layerskip")
      controller->source_cost(i).calibrate(calibration->layers);
  }
  if (options.use_cache) controller->restore(calibration->state);
}

// What earlier runs learnt, lost and gained counts in later ones; but what passes cost without a
// cache is of no use to others.
void Session::Impl::keep_calibration() noexcept {
  if (!controller || !calibration || !calibration_file || !options.use_cache) return;
  try {
    Calibration now = *calibration;
    now.target = controller->target_cost().table();
    for (int i = 0; i < controller->n_sources(); ++i) {
      if (controller->traits(i).name == "model") now.draft = controller->source_cost(i).table();
      if (controller->traits(i).name == "layerskip")
        now.layers = controller->source_cost(i).table();
    }
    now.state = controller->state();
    calibration_file->write(now);
  } catch (...) {  // as in write()
  }
}

std::vector<TokenId> Session::Impl::prompt_tokens(const GenerateRequest& request,
                                                  const Poll& poll) const {
  if (!request.prompt_ids.empty()) {
    if (!request.pieces.empty() || !request.prompt.empty()) {
      throw_invalid("give prompt_ids, pieces or prompt, not several of them");
    }
    return request.prompt_ids;
  }
  return target->encode(request.pieces.empty()
                            ? std::vector<PromptPiece>{{request.prompt, request.parse_special}}
                            : request.pieces,
                        request.add_bos, poll);
}

DecodeRequest Session::Impl::decode_request(const GenerateRequest& request,
                                            const Poll& poll) const {
  DecodeRequest out;
  out.prompt = prompt_tokens(request, poll);
  if (request.max_tokens < -1) {
    throw_invalid("max_tokens must be >= 0, or -1 for no limit, got " +
                  std::to_string(request.max_tokens));
  }
  if (request.max_tokens >= 0) out.max_tokens = request.max_tokens;
  out.sampling = request.sampling;
  for (const TokenId token : target->tokenizer().suppressed_ids())
    out.sampling.logit_bias.emplace_back(token, -std::numeric_limits<float>::infinity());
  const auto& eog = target->tokenizer().eog_ids();
  out.eog.assign(eog.begin(), eog.end());
  out.ignore_eos = request.ignore_eos;
  out.stop = request.stop;
  if (request.n_logprobs >= 0) out.n_logprobs = request.n_logprobs;
  out.verifier = options.verifier;
  return out;
}

Session::Session(std::shared_ptr<const LoadedModel> target, const SessionOptions& options,
                 const std::function<void()>& poll)
    : impl_(std::make_unique<Impl>()) {
  if (!target) throw_invalid("a session needs a model");
  impl_->options = resolve(*target, options);
  impl_->target = std::move(target);
  Impl& impl = *impl_;
  const LoadedModel* draft = impl.options.draft.get();
  if (draft != nullptr) require_pair(*impl.target, *draft);
  const std::string warning = context_warning(impl.target->model().config(), impl.options.n_ctx);
  if (!warning.empty()) log_message(LogLevel::kWarning, warning);

  impl.fill_head_tokens();
  impl.make_corpus(poll);

  const KvType kv_type = parse_kv_type(impl.options.kv_type);
  const int n_ctx = impl.options.n_ctx;
  check_memory(*impl.target, impl.options, kv_type);
  check_gpu_memory(*impl.target, impl.options, kv_type);
  impl.arena = KvArena::create({.device = gpu_of(*impl.target, impl.options)});
  impl.scorer = std::make_unique<ModelScorer>(
      impl.target, KvCache(impl.arena, impl.target->model().kv_shape(kv_type), n_ctx), n_ctx);
  if (draft != nullptr) {
    const int draft_ctx = std::min(n_ctx, draft->model().config().usable_context());
    impl.draft_scorer = std::make_unique<ModelScorer>(
        impl.options.draft, KvCache(impl.arena, draft->model().kv_shape(kv_type), draft_ctx),
        draft_ctx);
  }
  impl.make_decoder();
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

  const auto poll = [&] {
    if (request.should_cancel && request.should_cancel()) cancelled.store(true);
  };
  GenerateResult result;
  DecodeRequest decode;
  try {
    decode = impl.decode_request(request, [&] {
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
  poll();

  const DeviceBackend* const gpu = impl.arena->device().get();
  const double gpu_ms = gpu != nullptr ? gpu->device_stats().device_ms : 0.0;
  impl.calibrate_once(poll);
  const PollScope target_poll(impl.scorer.get(), progress);
  const PollScope draft_poll(impl.draft_scorer.get(), [&](int) { poll(); });
  for (const auto& rereader : impl.rereaders) rereader->clear();
  DecodeResult decoded = impl.decoder->run(decode);
  impl.count_rereads(decoded.stats);
  if (decoded.finish_reason != FinishReason::kCancelled) progress(n_prompt);
  impl.keep_calibration();
  if (gpu != nullptr) decoded.stats.device_ms = gpu->device_stats().device_ms - gpu_ms;
  if (OutputChunk rest = text.flush(); !rest.text.empty()) deliver(std::move(rest));

  result.token_ids = std::move(decoded.token_ids);
  result.from_draft.assign(decoded.from_draft.begin(), decoded.from_draft.end());
  result.finish_reason = to_string(decoded.finish_reason);
  if (decoded.stop_token >= 0) result.stop_reason = "eos";
  if (!decoded.stop_string.empty()) result.stop_reason = decoded.stop_string;
  result.logprobs = std::move(decoded.logprobs);
  result.n_prompt_tokens = static_cast<int>(decode.prompt.size());
  result.n_reused_tokens = static_cast<int>(decoded.stats.reused_prompt_tokens);
  result.seed = request.sampling.seed;
  result.stats = std::move(decoded.stats);
  if (impl.calibration) result.stats.calibration_ms = impl.calibration->measured_ms;
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
  copy->calibration_file = impl.calibration_file;
  copy->calibration = impl.calibration;
  copy->scorer = impl.scorer->fork();
  if (impl.draft_scorer) copy->draft_scorer = impl.draft_scorer->fork();
  copy->make_decoder(&impl);
  return std::unique_ptr<Session>(new Session(std::move(copy)));
}

void Session::reset() {
  const BusyGuard guard(impl_->busy, "reset()");
  impl_->decoder->reset();
}

std::vector<TokenId> Session::encode_prompt(const GenerateRequest& request) const {
  return impl_->prompt_tokens(request, {});
}

std::vector<TokenId> Session::cached_tokens() const {
  const BusyGuard guard(impl_->busy, "cached_tokens()");
  return impl_->scorer->tokens();
}

std::uint64_t Session::memory_bytes() const {
  const BusyGuard guard(impl_->busy, "memory_bytes()");
  const KvArenaStats kv = impl_->arena->stats();
  std::uint64_t n_bytes =
      kv.used_bytes + kv.free_bytes + kv.device_bytes + impl_->scorer->scratch_bytes();
  if (impl_->draft_scorer) n_bytes += impl_->draft_scorer->scratch_bytes();
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
