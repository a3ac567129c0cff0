#include "engine/session_options.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "backend/device_backend.h"
#include "base/error.h"
#include "base/log.h"
#include "decode/drafter.h"
#include "decode/verifier.h"
#include "engine/corpus_files.h"
#include "engine/memory.h"
#include "engine/text_memory.h"
#include "gguf/reader.h"
#include "kv/kv_cache.h"
#include "model/batch.h"
#include "model/model.h"

namespace specdec {
namespace {

constexpr const char* kHeadTokensKey = "specdec.draft.head_tokens";

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

// Of the target's and the draft's cache, without layers on a GPU, while nothing is forgotten.
std::uint64_t kv_bytes_per_token(const LoadedModel& target, const SessionOptions& options,
                                 KvType type) {
  const auto of = [type](const LoadedModel& model) {
    const KvShape shape = model.model().kv_shape(type);
    return (shape.page_size().host_bytes + shape.windowed_page_size().host_bytes) / kKvChunk;
  };
  return of(target) + (options.draft ? of(*options.draft) : 0);
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
  std::uint64_t needed = target.model().kv_shape(type).host_bytes(options.n_ctx, kMaxBatchRows);
  if (options.draft)
    needed += options.draft->model().kv_shape(type).host_bytes(options.n_ctx, kMaxBatchRows);
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

template <typename Options>
bool drafts_with(const SessionOptions& options) {
  return std::any_of(
      options.drafters.begin(), options.drafters.end(),
      [](const DrafterOptions& drafter) { return std::holds_alternative<Options>(drafter); });
}

// What drafter 'model' means with a draft that is a head: the same options, so far as it has them.
DrafterOptions as_head(const DraftModelOptions& model, const DraftHeadConfig& head) {
  if (model.branch > 1) throw_invalid("the draft is a head, which has no branch: leave it out");
  if (head.next_tokens) {
    return MtpOptions{.lengths = model.lengths,
                      .mode = model.mode,
                      .temperature = model.temperature,
                      .top_k = model.top_k,
                      .head_tokens = model.head_tokens};
  }
  if (model.head_tokens)
    throw_invalid("the draft is a head with its own tokens: leave head_tokens out");
  return EagleOptions{.lengths = model.lengths,
                      .mode = model.mode,
                      .temperature = model.temperature,
                      .top_k = model.top_k};
}

// Of a drafter that needs a head of one kind, and has got none or another draft.
void check_head(const SessionOptions& options, bool next_tokens) {
  const std::string name = next_tokens ? "mtp" : "eagle";
  const std::string needed = next_tokens ? "a block that predicts further tokens"
                                         : "a head (a GGUF file of the architecture 'eagle3')";
  if (!options.draft) throw_invalid("drafter '" + name + "' needs a head as the draft");
  const DraftHeadConfig& head = options.draft->model().config().draft_head;
  if (!head || head.next_tokens != next_tokens) {
    throw_invalid(printable(options.draft->info().path, 400) + " is " +
                  (!head         ? "a model"
                   : next_tokens ? "another kind of head"
                                 : "a block that predicts further tokens") +
                  ", and drafter '" + name + "' needs " + needed + "; use drafter '" +
                  (!head         ? "model"
                   : next_tokens ? "eagle"
                                 : "mtp") +
                  "'");
  }
  if (!options.use_cache) {
    throw Error(ErrorCode::kUnsupported,
                "drafter '" + name +
                    "' needs caches: it reads what passes of the target leave; leave out "
                    "use_cache=False");
  }
}

// What "auto" adds where the target's file predicts further tokens by itself.
void add_next_tokens(const LoadedModel& target, SessionOptions& options) {
  const bool can = options.prefer_next_tokens && !options.draft && options.use_cache &&
                   !options.drafters.empty() && has_next_tokens(target.file());
  if (!can) return;
  try {
    options.draft = target.next_tokens();
  } catch (const Error& error) {
    const bool goes_without = error.code() == ErrorCode::kModelFormat ||
                              error.code() == ErrorCode::kUnsupported ||
                              error.code() == ErrorCode::kResource;
    if (!goes_without) throw;
    log_message(LogLevel::kWarning,
                std::string("drafter 'mtp' is left out of 'auto': ") + error.what());
    return;
  }
  MtpOptions mtp;
  mtp.lengths = draft_lengths(options.drafters.front());
  options.drafters.insert(options.drafters.begin(), mtp);
}

void resolve_heads(const LoadedModel& target, SessionOptions& options) {
  if (target.model().config().draft_head) {
    throw Error(ErrorCode::kUnsupported,
                printable(target.info().path, 400) +
                    " is a head that drafts for a target and says nothing by itself; load its "
                    "target and give it as the draft");
  }
  const int n_kinds = static_cast<int>(drafts_with<DraftModelOptions>(options)) +
                      static_cast<int>(drafts_with<EagleOptions>(options)) +
                      static_cast<int>(drafts_with<MtpOptions>(options));
  if (n_kinds > 1) throw_invalid("a decoder drafts with one model or one head, not with both");
  if (options.draft) {
    const DraftHeadConfig& head = options.draft->model().config().draft_head;
    for (DrafterOptions& drafter : options.drafters) {
      const auto* const model = std::get_if<DraftModelOptions>(&drafter);
      if (head && model != nullptr) drafter = as_head(*model, head);
    }
  }
  add_next_tokens(target, options);
  if (drafts_with<MtpOptions>(options) && !options.draft) options.draft = target.next_tokens();
  if (drafts_with<MtpOptions>(options)) check_head(options, true);
  if (drafts_with<EagleOptions>(options)) check_head(options, false);
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
  if (!drafts_with<DraftModelOptions>(options) && !drafts_with<EagleOptions>(options) &&
      !drafts_with<MtpOptions>(options)) {
    options.draft.reset();
  } else if (!options.draft) {
    throw_invalid("drafter 'model' needs a draft model");
  }
}

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

std::shared_ptr<DeviceBackend> gpu_of(const LoadedModel& target, const SessionOptions& options) {
  const auto& gpu = target.gpu();
  if (!options.draft || options.draft->gpu() == nullptr) return gpu;
  if (gpu != nullptr && gpu != options.draft->gpu())
    throw_invalid("target and draft model are on different GPUs; load both on the same one");
  return options.draft->gpu();
}

void check_cache_memory(const LoadedModel& target, const SessionOptions& options) {
  const KvType type = parse_kv_type(options.kv_type);
  check_memory(target, options, type);
  check_gpu_memory(target, options, type);
}

int default_context(const LoadedModel& model) {
  if (model.n_ctx() > 0) return model.n_ctx();
  return std::min(model.model().config().context_length, kDefaultContext);
}

SessionOptions resolve_options(const LoadedModel& target, SessionOptions options) {
  check_choice("verifier", options.verifier, verifier_names());
  resolve_heads(target, options);
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

namespace {

// All of a text that was given as such; of files what max_store tokens hold.
std::shared_ptr<const SuffixIndex> suffix_corpus(const LoadedModel& target,
                                                 const SuffixOptions& options,
                                                 const std::function<void()>& poll) {
  constexpr std::uint64_t kMostBytesPerToken = 16;
  std::vector<std::string> texts = {options.corpus_text};
  if (!options.corpus_path.empty()) {
    const auto max_store = static_cast<std::uint64_t>(std::max(options.max_store, 0));
    texts = read_corpus(options.corpus_path, max_store * kMostBytesPerToken, poll);
  }
  std::vector<std::vector<TokenId>> tokens;
  std::size_t n_tokens = 0;
  for (const std::string& text : texts) {
    tokens.push_back(target.encode({{text, false}}, 0, poll));
    n_tokens += tokens.back().size();
    if (texts.size() > 1 && n_tokens >= static_cast<std::size_t>(options.max_store)) break;
  }
  return make_suffix_corpus(tokens, poll);
}

// What the draft was made for, if its file says so.
std::optional<int> head_tokens_of(const GgufFile& file) {
  const std::uint64_t kept = file.get_u64(kHeadTokensKey, 0);
  if (kept == 0 || kept >= (1U << 30)) return std::nullopt;
  return static_cast<int>(kept);
}

}  // namespace

void complete_drafters(const LoadedModel& target, SessionOptions& options,
                       const std::function<void()>& poll) {
  if (options.memory != nullptr) options.memory->bind(target, poll);
  for (DrafterOptions& drafter : options.drafters) {
    if (auto* recycling = std::get_if<RecyclingOptions>(&drafter))
      recycling->memory = options.memory != nullptr ? options.memory->texts() : nullptr;
    if (auto* model = std::get_if<DraftModelOptions>(&drafter); model && !model->head_tokens)
      model->head_tokens = head_tokens_of(options.draft->file());
    if (auto* mtp = std::get_if<MtpOptions>(&drafter); mtp && !mtp->head_tokens)
      mtp->head_tokens = head_tokens_of(options.draft->file());
    auto* const suffix = std::get_if<SuffixOptions>(&drafter);
    if (suffix == nullptr || (suffix->corpus_text.empty() && suffix->corpus_path.empty())) continue;
    suffix->corpus = suffix_corpus(target, *suffix, poll);
    suffix->corpus_text.clear();
    suffix->corpus_path.clear();
  }
}

std::optional<int> draft_head_tokens(const SessionOptions& options) {
  for (const DrafterOptions& drafter : options.drafters) {
    if (const auto* mtp = std::get_if<MtpOptions>(&drafter)) return mtp->head_tokens;
    if (const auto* model = std::get_if<DraftModelOptions>(&drafter)) return model->head_tokens;
  }
  return 0;
}

}  // namespace specdec
