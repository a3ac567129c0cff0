// Sessions that are kept in files, and go on from them.
#include <algorithm>
#include <exception>
#include <utility>
#include <variant>

#include "decode/token_cache.h"
#include "engine/session_impl.h"
#include "kv/kv_file.h"
#include "model/model.h"

namespace specdec {
namespace {

using Poll = std::function<void()>;

constexpr const char* kMakeAgain = "read the prompt again and save it again";

std::string model_text(const LoadedModel& model) {
  const ModelInfo& info = model.info();
  return info.architecture + (info.name.empty() ? "" : " '" + printable(info.name, 200) + "'");
}

KvFileCache describe(const LoadedModel& model, const KvCache& cache, const Poll& poll) {
  return {.model = model_text(model),
          .fingerprint = model.fingerprint(poll),
          .n_ctx = cache.n_ctx(),
          .long_context = model.model().is_long(cache.n_ctx()),
          .record = KvStore::record(cache)};
}

bool same_shape(const KvShape& a, const KvShape& b) {
  return a.n_layers == b.n_layers && a.layout.type == b.layout.type &&
         a.layout.n_kv_heads == b.layout.n_kv_heads && a.layout.head_dim == b.layout.head_dim &&
         a.n_device_layers == b.n_device_layers && a.windowed == b.windowed &&
         a.window == b.window && a.n_recurrent_layers == b.n_recurrent_layers &&
         a.recurrent == b.recurrent;
}

bool all_below(std::span<const TokenId> tokens, int n) {
  return std::all_of(tokens.begin(), tokens.end(), [n](TokenId t) { return t < n; });
}

// Whether it was saved by this program, with this model.
void require_model(const KvFile& file, const LoadedModel& model, const Poll& poll) {
  if (file.head().version != SPECDEC_VERSION)
    throw file.make_error(ErrorCode::kUnsupported, "version",
                          "was saved by version " + printable(file.head().version, 40) +
                              ", this is " + SPECDEC_VERSION + ", which may round differently; " +
                              kMakeAgain);
  const KvFileCache& kept = file.head().caches[0];
  if (kept.fingerprint != model.fingerprint(poll))
    throw file.make_error(ErrorCode::kInvalidArgument, "other_model",
                          "was saved with another model: " + printable(kept.model, 300) + ", got " +
                              model_text(model) +
                              ", whose weights or metadata differ; give that model, or " +
                              kMakeAgain);
}

// Of the target: why what was kept cannot take the place of `cache`.
void require_fit(const KvFile& file, const LoadedModel& model, const KvCache& cache,
                 const Poll& poll) {
  const KvFileCache& kept = file.head().caches[0];
  const auto refuse = [&](ErrorCode code, const char* reason, const std::string& text) {
    throw file.make_error(code, reason, text);
  };
  if (cache.shape().n_device_layers > 0)
    refuse(ErrorCode::kUnsupported, "device",
           "a kept prompt cannot be loaded into the memory of a GPU, where " +
               std::to_string(cache.shape().n_device_layers) +
               " layers are; load the model with device 'cpu'");
  require_model(file, model, poll);
  if (kept.record.shape.layout.type != cache.shape().layout.type)
    refuse(ErrorCode::kInvalidArgument, "kv_type",
           std::string("holds ") + kv_type_name(kept.record.shape.layout.type) +
               " elements, kv_type is " + kv_type_name(cache.shape().layout.type) +
               "; give kv_type " + kv_type_name(kept.record.shape.layout.type) + ", or " +
               kMakeAgain);
  if (kept.record.length > cache.n_ctx())
    refuse(ErrorCode::kContextFull, "n_ctx",
           "holds " + std::to_string(kept.record.length) + " tokens, n_ctx is " +
               std::to_string(cache.n_ctx()) + "; give the n_ctx that it was saved with, " +
               std::to_string(kept.n_ctx));
  if (kept.long_context != model.model().is_long(cache.n_ctx()))
    refuse(ErrorCode::kInvalidArgument, "n_ctx",
           "was saved with n_ctx " + std::to_string(kept.n_ctx) + ", got " +
               std::to_string(cache.n_ctx()) +
               ": this model turns positions of long contexts in another way; give that n_ctx, "
               "or " +
               kMakeAgain);
  if (!same_shape(kept.record.shape, cache.shape()))
    refuse(ErrorCode::kModelFormat, "bad_value",
           std::string("its caches have another shape than the model's; ") + kMakeAgain);
  if (!all_below(file.head().tokens, model.model().config().n_tokens))
    refuse(ErrorCode::kModelFormat, "bad_value",
           std::string("it holds tokens that the model does not have; ") + kMakeAgain);
}

// Of the draft model, which may read again what was not kept for it.
bool fits_draft(const KvFile& file, const LoadedModel& model, const KvCache& cache,
                const Poll& poll) {
  if (file.head().caches.size() < 2 || cache.shape().n_device_layers > 0) return false;
  const KvFileCache& kept = file.head().caches[1];
  return kept.record.length <= cache.n_ctx() && same_shape(kept.record.shape, cache.shape()) &&
         kept.long_context == model.model().is_long(cache.n_ctx()) &&
         kept.fingerprint == model.fingerprint(poll);
}

// Lets the draft model read what the target holds, as far as it can. False: it holds nothing.
bool read_with_draft(ModelDrafter& drafter, TokenCache& draft, ModelScorer& scorer,
                     std::span<const TokenId> tokens, const Poll& poll) {
  const auto n = std::min(tokens.size(), static_cast<std::size_t>(scorer.n_ctx() - 1));
  tokens = tokens.first(n);
  const PollScope scope(&scorer, [&](int) {
    if (poll) poll();
  });
  try {
    // A drafter that holds a window of the text would take all of it for that, and throw it away.
    if (drafter.n_unread() > 0) drafter.align({});
    draft.align_to_reachable(tokens, static_cast<int>(n));
    if (all_below(tokens, scorer.vocab_size()))
      draft.read(tokens.subspan(draft.tokens().size()), nullptr);
  } catch (const Error& error) {  // the drafter meets it in its own time, and tells
    if (error.code() == ErrorCode::kCancelled) throw;
    draft.truncate(draft.length());
  }
  return draft.length() > 0;
}

// Null: none drafts with a model of its own.
ModelDrafter* model_drafter(const DrafterSet& drafters) {
  for (Drafter* const drafter : drafters.list())
    if (drafter->name() == "model") return drafter->model();
  return nullptr;
}

void require_cache(const SessionOptions& options) {
  if (!options.use_cache)
    throw_invalid("without a cache (use_cache false) there is nothing to keep: leave it true");
}

}  // namespace

KeptOptions kept_options(const LoadedModel& target, const std::string& path, const Poll& poll) {
  const KvFile file(path);
  require_model(file, target, poll);
  const KvFileCache& kept = file.head().caches[0];
  return {.n_ctx = kept.n_ctx, .kv_type = kv_type_name(kept.record.shape.layout.type)};
}

void Session::save(const std::string& path, const Poll& poll) {
  Impl& impl = *impl_;
  const BusyGuard guard(impl.busy, "save()");
  require_cache(impl.options);
  TokenCache& cache = impl.decoder->cache();
  cache.truncate(cache.length());  // rows of a call that failed
  const std::span<const TokenId> tokens = cache.tokens();
  if (tokens.empty())
    throw_invalid("there is nothing to save: no prompt of two tokens or more was read");
  const KvCache& target = impl.scorer->settled();
  KvFileHead head{
      .version = SPECDEC_VERSION, .tokens = {tokens.begin(), tokens.end()}, .caches = {}};
  head.caches.push_back(describe(*impl.target, target, poll));
  std::vector<const KvCache*> caches{&target};
  TokenCache* const draft = impl.drafters->draft_cache();
  ModelDrafter* const drafter = model_drafter(*impl.drafters);
  if (draft != nullptr && drafter != nullptr &&
      impl.draft_scorer->kv().shape().n_device_layers == 0 &&
      read_with_draft(*drafter, *draft, *impl.draft_scorer, tokens, poll)) {
    caches.push_back(&impl.draft_scorer->settled());
    head.caches.push_back(describe(*impl.options.draft, *caches.back(), poll));
  }
  write_kv_file(path, head, caches, poll);
}

void Session::load(const std::string& path, const Poll& poll) {
  Impl& impl = *impl_;
  const BusyGuard guard(impl.busy, "load()");
  require_cache(impl.options);
  const KvFile file(path);
  require_fit(file, *impl.target, impl.scorer->kv(), poll);
  KvCache target = file.read(0, impl.arena, impl.scorer->kv().n_ctx(), poll);
  std::vector<TokenId> tokens = file.head().tokens;
  std::optional<KvCache> draft;
  std::vector<TokenId> draft_tokens;
  if (impl.draft_scorer && fits_draft(file, *impl.options.draft, impl.draft_scorer->kv(), poll) &&
      all_below(tokens, impl.draft_scorer->vocab_size())) {
    draft = file.read(1, impl.arena, impl.draft_scorer->kv().n_ctx(), poll);
    draft_tokens.assign(tokens.begin(), tokens.begin() + draft->length());
  }
  impl.decoder->reset();
  // With caches that are empty yet; whatever ends that, the text of the file is there afterwards.
  std::exception_ptr ended;
  try {
    impl.calibrate([&] {
      if (poll) poll();
    });
  } catch (...) {
    ended = std::current_exception();
  }
  impl.scorer->adopt(std::move(target));
  impl.decoder->cache().adopt(std::move(tokens));
  if (draft) {
    impl.draft_scorer->adopt(std::move(*draft));
    impl.drafters->draft_cache()->adopt(std::move(draft_tokens));
  }
  if (ended) std::rethrow_exception(ended);
}

}  // namespace specdec
