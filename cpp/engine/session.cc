#include "engine/session.h"

#include <algorithm>
#include <atomic>
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

constexpr int kMaxDraft = 64;
constexpr std::string_view kHeadTokensKey = "specdec.draft.head_tokens";

DraftMode parse_draft_mode(const std::string& name) {
  if (name == "auto") return DraftMode::kAuto;
  if (name == "greedy") return DraftMode::kGreedy;
  if (name == "sampled") return DraftMode::kSampled;
  if (name == "coupled") return DraftMode::kCoupled;
  bad_choice("draft_sampling", name, {"auto", "greedy", "sampled", "coupled"});
}

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

// Decides "auto", and whether the length of drafts is adapted.
void resolve_drafters(SessionOptions& options) {
  const std::vector<std::string> names = split_names(options.drafter);
  if (names.size() > 1) {
    std::vector<std::string> choices;
    for (const DrafterInfo& info : all_drafters()) choices.emplace_back(info.name);
    for (std::size_t i = 0; i < names.size(); ++i) {
      check_choice("each drafter of a list", names[i], choices);
      if (std::find(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(i), names[i]) !=
          names.begin() + static_cast<std::ptrdiff_t>(i)) {
        throw_invalid("drafter '" + names[i] + "' is in the list twice");
      }
    }
    options.adaptive = true;
  } else {
    check_choice("drafter", options.drafter, drafter_names());
  }
  if (options.drafter == "auto") {
    options.drafter = options.draft ? "model,ngram,suffix" : "ngram,suffix";
    options.adaptive = true;
  }
  if (options.drafter == "none") options.adaptive = false;
  const std::vector<std::string> chosen = split_names(options.drafter);
  if (std::find(chosen.begin(), chosen.end(), "model") == chosen.end()) {
    options.draft.reset();
  } else if (!options.draft) {
    throw_invalid("drafter 'model' needs a draft model");
  }
}

// Options with every "auto" of construction time decided, or Error(kInvalidArgument).
SessionOptions resolve(const LoadedModel& target, SessionOptions options) {
  check_choice("verifier", options.verifier, verifier_names());
  (void)parse_draft_mode(options.draft_sampling);
  if (options.draft_max != -1) check_range("draft_max", options.draft_max, 0, kMaxDraft);
  check_range("draft_min", options.draft_min, 0, kMaxDraft);
  if (options.gamma != -1) check_range("gamma", options.gamma, 0, kMaxDraft);
  if (options.draft_head != -1) check_range("draft_head", options.draft_head, 0, 1 << 30);
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
  std::atomic<bool> cancelled{false};
  std::unique_ptr<ModelScorer> scorer, draft_scorer;
  std::unique_ptr<LayerSkipScorer> layer_scorer;
  std::shared_ptr<const SuffixIndex> suffix_corpus;  // shared by forks
  std::vector<std::unique_ptr<Drafter>> drafters;
  std::optional<Controller> controller;  // of adaptive drafting
  std::optional<CalibrationFile> calibration_file;
  std::optional<Calibration> calibration;
  std::unique_ptr<Decoder> decoder;

  [[nodiscard]] DrafterSource drafter_source() const;
  void make_decoder();
  void calibrate_once();
  void keep_calibration() noexcept;
  [[nodiscard]] std::vector<TokenId> prompt_tokens(const GenerateRequest& request) const;
  [[nodiscard]] DecodeRequest decode_request(const GenerateRequest& request) const;
};

DrafterSource Session::Impl::drafter_source() const {
  DrafterSource source;
  source.draft_scorer = draft_scorer.get();
  if (draft_scorer) source.draft_cached = draft_scorer->tokens();
  source.layer_scorer = layer_scorer.get();
  source.model.mode = parse_draft_mode(options.draft_sampling);
  if (options.draft_temperature >= 0) source.model.temperature = options.draft_temperature;
  if (options.draft_top_k > 0) source.model.top_k = options.draft_top_k;
  source.model.branch = options.draft_branch;
  if (options.draft_head >= 0) {
    source.model.head_tokens = options.draft_head;
  } else if (options.draft) {  // what the draft was made for, if its file says so
    const std::uint64_t kept = options.draft->file().get_u64(kHeadTokensKey, 0);
    if (kept > 0 && kept < (1U << 30)) source.model.head_tokens = static_cast<int>(kept);
  }
  source.ngram.n = options.ngram_n;
  source.ngram.filler_top_k = options.ngram_filler_top_k;
  source.ngram.min_count = options.ngram_min_count;
  source.ngram.keep_store = options.ngram_keep;
  source.suffix.min_match = options.suffix_min_match;
  source.suffix.max_store = options.suffix_max_store;
  source.suffix.keep_store = options.suffix_keep;
  source.suffix.corpus = suffix_corpus;
  source.recycling.top_k = options.recycling_top_k;
  source.recycling.tree = options.recycling_tree;
  source.recycling.keep_store = options.recycling_keep;
  return source;
}

// The scorers are there; builds what stands on them.
void Session::Impl::make_decoder() {
  std::vector<Drafter*> list;
  std::vector<SourceTraits> traits;
  if (options.drafter != "none") {
    const std::vector<std::string> names = split_names(options.drafter);
    if (std::find(names.begin(), names.end(), "layerskip") != names.end()) {
      const int n_layers = options.draft_layers;
      layer_scorer = std::make_unique<LayerSkipScorer>(
          *scorer, n_layers != 0 ? n_layers : std::max(scorer->n_layers() / 4, 1));
    }
    const DrafterSource source = drafter_source();
    for (const std::string& name : names) {
      drafters.push_back(make_drafter(name, source));
      list.push_back(drafters.back().get());
      traits.push_back({.name = name, .lookup = !drafters.back()->uses_model()});
    }
  }
  if (options.adaptive && !controller) controller.emplace(std::move(traits));
  decoder = std::make_unique<Decoder>(*scorer, std::move(list), controller ? &*controller : nullptr,
                                      scorer->tokens());
}

// Before the first request, because it feeds the caches.
void Session::Impl::calibrate_once() {
  if (!controller || calibration || options.gamma >= 0 || scorer->length() > 0) return;
  if (draft_scorer && draft_scorer->length() > 0) return;
  calibration.emplace();
  const CalibrationFile& file =
      calibration_file.emplace(*target, options.draft.get(), parse_kv_type(options.kv_type));
  const int n_layers = layer_scorer ? layer_scorer->n_layers() : 0;
  const bool usable = file.read(*calibration) && calibration->draft.empty() == !draft_scorer &&
                      (n_layers == 0 || calibration->n_draft_layers == n_layers);
  if (!usable) {
    *calibration = calibrate(*scorer, draft_scorer.get(), n_layers);
    file.write(*calibration);
  }
  controller->target_cost().calibrate(calibration->target);
  for (int i = 0; i < controller->n_sources(); ++i) {
    if (controller->traits(i).name == "model")
      controller->source_cost(i).calibrate(calibration->draft);
    if (controller->traits(i).name == "layerskip")
      controller->source_cost(i).calibrate(calibration->layers);
  }
  controller->restore(calibration->state);
}

// What earlier runs learnt, lost and gained counts in later ones.
void Session::Impl::keep_calibration() noexcept {
  if (!controller || !calibration || !calibration_file) return;
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

std::vector<TokenId> Session::Impl::prompt_tokens(const GenerateRequest& request) const {
  if (!request.prompt_ids.empty()) {
    if (!request.pieces.empty() || !request.prompt.empty()) {
      throw_invalid("give prompt_ids, pieces or prompt, not several of them");
    }
    return request.prompt_ids;
  }
  return target->encode(request.pieces.empty()
                            ? std::vector<PromptPiece>{{request.prompt, request.parse_special}}
                            : request.pieces,
                        request.add_bos);
}

DecodeRequest Session::Impl::decode_request(const GenerateRequest& request) const {
  DecodeRequest out;
  out.prompt = prompt_tokens(request);
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
  if (options.gamma >= 0) out.gamma = options.gamma;
  if (options.draft_max >= 0) out.draft_max = options.draft_max;
  out.draft_min = options.draft_min;
  out.cancel = &cancelled;
  return out;
}

Session::Session(std::shared_ptr<const LoadedModel> target, const SessionOptions& options)
    : impl_(std::make_unique<Impl>()) {
  if (!target) throw_invalid("a session needs a model");
  impl_->options = resolve(*target, options);
  impl_->target = std::move(target);
  Impl& impl = *impl_;
  const LoadedModel* draft = impl.options.draft.get();
  if (draft != nullptr) require_pair(*impl.target, *draft);
  const std::string warning = context_warning(impl.target->model().config(), impl.options.n_ctx);
  if (!warning.empty()) log_message(LogLevel::kWarning, warning);

  if (!impl.options.suffix_corpus.empty()) {
    impl.suffix_corpus =
        make_suffix_corpus(impl.target->encode({{impl.options.suffix_corpus, false}}, 0));
    impl.options.suffix_corpus.clear();
  }

  const KvType kv_type = parse_kv_type(impl.options.kv_type);
  const int n_ctx = impl.options.n_ctx;
  check_memory(*impl.target, impl.options, kv_type);
  check_gpu_memory(*impl.target, impl.options, kv_type);
  impl.arena = KvArena::create({.device = gpu_of(*impl.target, impl.options)});
  impl.scorer = std::make_unique<ModelScorer>(
      impl.target, KvCache(impl.arena, impl.target->model().kv_shape(kv_type), n_ctx), n_ctx,
      &impl.cancelled);
  if (draft != nullptr) {
    const int draft_ctx = std::min(n_ctx, draft->model().config().usable_context());
    impl.draft_scorer = std::make_unique<ModelScorer>(
        impl.options.draft, KvCache(impl.arena, draft->model().kv_shape(kv_type), draft_ctx),
        draft_ctx, &impl.cancelled);
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
  impl.cancelled.store(false);

  DecodeRequest decode = impl.decode_request(request);
  const OutputPieces pieces(impl.target->tokenizer(), request.render_special);
  decode.pieces = &pieces;
  OutputText text(pieces);
  GenerateResult result;
  const auto deliver = [&](OutputChunk chunk) {
    result.text += chunk.text;
    if (request.on_chunk) request.on_chunk(chunk);
  };
  const auto poll = [&] {
    if (request.should_cancel && request.should_cancel()) impl.cancelled.store(true);
  };
  decode.on_chunk = [&](const Chunk& chunk) {
    deliver(text.push(chunk));
    poll();
    return !impl.cancelled.load();
  };
  decode.on_round = [&](const RoundInfo& round) {
    if (request.on_round) request.on_round(round);
    poll();
  };
  const auto n_prompt = static_cast<int>(decode.prompt.size());
  const auto progress = [&](int done) {
    poll();
    if (request.on_progress) request.on_progress(std::min(done, n_prompt), n_prompt);
  };
  decode.on_prompt = [&](int done, int) { progress(done); };
  const PollScope target_poll(impl.scorer.get(), progress);
  const PollScope draft_poll(impl.draft_scorer.get(), [&](int) { poll(); });
  poll();

  const DeviceBackend* const gpu = impl.arena->device().get();
  const double gpu_ms = gpu != nullptr ? gpu->device_stats().device_ms : 0.0;
  impl.calibrate_once();
  DecodeResult decoded = impl.decoder->run(decode);
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

void Session::cancel() noexcept {
  // While idle it has no effect: the next generate() clears the flag first.
  impl_->cancelled.store(true);
}

std::unique_ptr<Session> Session::fork() {
  Impl& impl = *impl_;
  const BusyGuard guard(impl.busy, "fork()");
  auto copy = std::make_unique<Impl>();
  copy->target = impl.target;
  copy->options = impl.options;
  copy->arena = impl.arena;
  copy->suffix_corpus = impl.suffix_corpus;
  copy->controller = impl.controller;
  copy->calibration_file = impl.calibration_file;
  copy->calibration = impl.calibration;
  copy->scorer = impl.scorer->fork(&copy->cancelled);
  if (impl.draft_scorer) copy->draft_scorer = impl.draft_scorer->fork(&copy->cancelled);
  copy->make_decoder();
  return std::unique_ptr<Session>(new Session(std::move(copy)));
}

void Session::reset() {
  const BusyGuard guard(impl_->busy, "reset()");
  impl_->decoder->reset();
}

std::vector<TokenId> Session::encode_prompt(const GenerateRequest& request) const {
  return impl_->prompt_tokens(request);
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
