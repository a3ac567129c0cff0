#include "engine/generate_many.h"

#include <algorithm>
#include <limits>
#include <new>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "decode/task.h"
#include "decode/token_cache.h"
#include "engine/memory.h"
#include "engine/reading_pace.h"
#include "engine/session_options.h"
#include "kv/kv_cache.h"
#include "model/runner.h"
#include "tokenizer/tokenizer.h"

namespace specdec {
namespace {

constexpr std::size_t kMinShared = 8;  // tokens of a common beginning that are worth a copy

// A sequence on its way. The task refers to the request, so it does not move.
struct Sequence {
  std::size_t index = 0;
  DecodeRequest request;
  KvCache cache;
  std::vector<float> states;  // of the layers asked for, at the tokens that the cache holds
  Task task;

  Sequence(std::size_t i, DecodeRequest r, KvCache kv, const TaskTarget& target)
      : index(i), request(std::move(r)), cache(std::move(kv)), task(target, {}, nullptr, request) {}
};

// Row 0 of a sequence is this one of the pass.
class OneRow final : public RowResults {
 public:
  OneRow(const RowResults& all, int row) : all_(all), row_(row) {}
  [[nodiscard]] std::span<const float> logits(int row) const override {
    return all_.logits(row_ + row);
  }
  [[nodiscard]] TokenId argmax(int row) const override { return all_.argmax(row_ + row); }
  [[nodiscard]] std::span<const TopToken> top(int row) const override {
    return all_.top(row_ + row);
  }
  [[nodiscard]] float log_sum_exp(int row) const override { return all_.log_sum_exp(row_ + row); }

 private:
  const RowResults& all_;
  int row_;
};

class Many {
 public:
  Many(const LoadedModel& loaded, const ManyRequest& request);
  std::vector<ManyResult> run();

 private:
  void check() const;
  void check_room() const;
  [[nodiscard]] DecodeRequest request_for(std::size_t index) const;
  [[nodiscard]] const Sequence* like(std::span<const TokenId> unread, std::size_t& n_shared) const;
  void start(std::size_t index);
  void read(Sequence& sequence);
  void pass();
  void keep_states(Sequence& sequence, int first_row, std::size_t n_rows) const;
  void end(Sequence& sequence, bool cancelled);
  void finish_all();
  // Throws Error(kCancelled).
  void poll() {
    if (request_.should_cancel && request_.should_cancel()) cancel_.store(true);
    throw_if_cancelled(&cancel_);
  }

  const LoadedModel& loaded_;
  const Model& model_;
  const ManyRequest& request_;
  std::atomic<bool> own_cancel_{false};
  std::atomic<bool>& cancel_;
  SamplingParams sampling_;
  KvType kv_type_;
  int n_ctx_ = 0;
  std::size_t width_ = 0;  // numbers of the hidden states of a token
  std::shared_ptr<KvArena> arena_ = KvArena::create();
  Runner runner_;
  ReadingPace pace_;
  std::vector<std::unique_ptr<Sequence>> active_;
  std::vector<ManyResult> results_;
  std::size_t n_done_ = 0;
};

Many::Many(const LoadedModel& loaded, const ManyRequest& request)
    : loaded_(loaded),
      model_(loaded.model()),
      request_(request),
      cancel_(request.cancel != nullptr ? *request.cancel : own_cancel_),
      sampling_(request.sampling),
      kv_type_(request.kv_type.empty() ? loaded.kv_type() : parse_kv_type(request.kv_type)),
      runner_(model_) {
  sampling_.validate();
  n_ctx_ = request.n_ctx != 0 ? request.n_ctx : default_context(loaded);
  check();
  width_ = request.layers.size() * static_cast<std::size_t>(model_.config().hidden_size);
  check_room();
  const std::string warning = context_warning(model_.config(), n_ctx_);
  if (!warning.empty()) log_message(LogLevel::kWarning, warning);
  for (const TokenId token : loaded.tokenizer().suppressed_ids())
    sampling_.logit_bias.emplace_back(token, -std::numeric_limits<float>::infinity());
  results_.resize(request.prompts.size());
}

void Many::check() const {
  const auto check_range = [](const char* option, int value, int min, int max) {
    if (value >= min && value <= max) return;
    throw_invalid(std::string(option) + " must be " + std::to_string(min) + " to " +
                  std::to_string(max) + ", got " + std::to_string(value));
  };
  check_range("n_parallel", request_.n_parallel, 1, kMaxParallel);
  check_range("n_ctx", n_ctx_, 1, kMaxContextLength);
  check_range("n_logprobs", request_.n_logprobs, -1, kMaxTopK);
  if (request_.seeds.size() != request_.prompts.size() ||
      request_.max_tokens.size() != request_.prompts.size()) {
    throw_invalid("there are " + std::to_string(request_.prompts.size()) + " prompts, " +
                  std::to_string(request_.seeds.size()) + " seeds and " +
                  std::to_string(request_.max_tokens.size()) + " max_tokens; expected one of each");
  }
  for (const int n : request_.max_tokens)
    check_range("max_tokens", n, -1, std::numeric_limits<int>::max());
  for (std::size_t i = 0; i < request_.prompts.size(); ++i) {
    const std::size_t n = request_.prompts[i].size();
    if (n == 0) throw_invalid("prompt " + std::to_string(i) + " has no token");
    if (n < static_cast<std::size_t>(n_ctx_)) continue;
    throw Error(ErrorCode::kContextFull, "prompt " + std::to_string(i) + " has " +
                                             std::to_string(n) + " tokens and the context " +
                                             std::to_string(n_ctx_) +
                                             ": no room for one more token");
  }
}

// Better said at once than after half of the work.
void Many::check_room() const {
  const std::uint64_t available = available_memory_bytes();
  const std::uint64_t caches = model_.kv_shape(kv_type_).host_bytes(n_ctx_, kMaxBatchRows) *
                               static_cast<std::uint64_t>(request_.n_parallel);
  if (caches > available) {
    throw Error(ErrorCode::kResource, std::to_string(request_.n_parallel) + " caches of " +
                                          std::to_string(n_ctx_) + " tokens need " +
                                          std::to_string(caches >> 20) + " MiB and " +
                                          std::to_string(available >> 20) +
                                          " MiB are available; use a smaller n_parallel or n_ctx");
  }
  std::uint64_t states = 0;
  for (std::size_t i = 0; i < request_.prompts.size(); ++i) {
    const auto n_prompt = static_cast<int>(request_.prompts[i].size());
    const int room = n_ctx_ - n_prompt, wanted = request_.max_tokens[i];
    const int n = n_prompt + (wanted < 0 ? room : std::min(wanted, room));
    states += static_cast<std::uint64_t>(n) * width_ * sizeof(float);
  }
  if (states == 0 || states <= available - caches) return;
  throw Error(ErrorCode::kResource,
              "hidden states of " + std::to_string(request_.layers.size()) + " layers may need " +
                  bytes_text(states) + " and " + bytes_text(available - caches) +
                  " are available beside the caches; give fewer prompts at once, a smaller "
                  "max_tokens or fewer layers");
}

DecodeRequest Many::request_for(std::size_t index) const {
  DecodeRequest out;
  out.prompt = request_.prompts[index];
  if (request_.max_tokens[index] >= 0) out.max_tokens = request_.max_tokens[index];
  out.sampling = sampling_;
  out.sampling.seed = request_.seeds[index];
  const auto& eog = loaded_.tokenizer().eog_ids();
  out.eog.assign(eog.begin(), eog.end());
  out.ignore_eos = request_.ignore_eos;
  out.keep_eog = request_.keep_eos;
  if (request_.n_logprobs >= 0) out.n_logprobs = request_.n_logprobs;
  out.logprobs_of_best = true;
  out.cancel = &cancel_;
  return out;
}

// A running sequence that begins with the same tokens, at least kMinShared of them; or null.
const Sequence* Many::like(std::span<const TokenId> unread, std::size_t& n_shared) const {
  const Sequence* best = nullptr;
  n_shared = kMinShared - 1;
  for (const auto& sequence : active_) {
    const std::span<const TokenId> held =
        sequence->task.committed().first(static_cast<std::size_t>(sequence->cache.length()));
    const auto differs = std::mismatch(unread.begin(), unread.end(), held.begin(), held.end());
    const auto n = static_cast<std::size_t>(
        sequence->cache.reachable(static_cast<int>(differs.first - unread.begin())));
    if (n > n_shared) {
      n_shared = n;
      best = sequence.get();
    }
  }
  return best;
}

void Many::start(std::size_t index) {
  const std::vector<TokenId>& prompt = request_.prompts[index];
  std::size_t n_shared = 0;
  const Sequence* const other = like(std::span(prompt).first(prompt.size() - 1), n_shared);
  KvCache cache =
      other == nullptr ? KvCache(arena_, model_.kv_shape(kv_type_), n_ctx_) : other->cache.fork();
  if (other != nullptr) cache.truncate(static_cast<int>(n_shared));
  auto sequence = std::make_unique<Sequence>(
      index, request_for(index), std::move(cache),
      TaskTarget{.vocab_size = model_.config().n_tokens, .n_ctx = n_ctx_, .scorer = nullptr});
  if (sequence->task.limit() == 0) {
    end(*sequence, false);
    return;
  }
  if (other != nullptr && width_ > 0) {
    const auto end = other->states.begin() + static_cast<std::ptrdiff_t>(n_shared * width_);
    sequence->states.assign(other->states.begin(), end);
  }
  sequence->task.begin();
  sequence->task.read_from(sequence->cache.length(), 0.0);
  read(*sequence);
  active_.push_back(std::move(sequence));
}

// All of the prompt but its last token.
void Many::read(Sequence& sequence) {
  while (sequence.task.reads()) {
    poll();
    Batch batch = sequence.task.next_rows(pace_.rows())->batch;
    batch.taps = request_.layers;
    pace_.time(batch.tokens.size(), [&] { runner_.forward(batch, sequence.cache, &cancel_); });
    keep_states(sequence, 0, batch.tokens.size());
    sequence.cache.forget();
    (void)sequence.task.take(runner_.results(), 0.0);
  }
}

void Many::pass() {
  std::vector<BatchPart> parts;
  Batch batch;
  for (const auto& sequence : active_) {
    const TaskRows* const rows = sequence->task.next_rows();
    SPECDEC_CHECK(rows != nullptr && rows->batch.tokens.size() == 1);  // none of them drafts
    batch = rows->batch;
    parts.push_back({.tokens = batch.tokens, .cache = &sequence->cache});
    sequence->cache.forget();
  }
  // All ask for the same: their requests differ in what the rows say nothing about.
  double ms = 0.0;
  {
    const ScopedMs timer(ms);
    runner_.forward_parts(
        {.parts = parts, .output = batch.output, .top_k = batch.top_k, .taps = request_.layers},
        &cancel_);
  }
  std::vector<std::unique_ptr<Sequence>> left;
  for (std::size_t i = 0; i < active_.size(); ++i) {
    Sequence& sequence = *active_[i];
    keep_states(sequence, static_cast<int>(i), 1);
    (void)sequence.task.take(OneRow(runner_.results(), static_cast<int>(i)), ms);
    sequence.task.commit(0.0);
    if (sequence.task.ended()) {
      end(sequence, false);
    } else {
      left.push_back(std::move(active_[i]));
    }
  }
  active_ = std::move(left);
}

void Many::keep_states(Sequence& sequence, int first_row, std::size_t n_rows) const {
  if (width_ == 0) return;
  for (std::size_t row = 0; row < n_rows; ++row) {
    const std::span<const float> states = runner_.results().taps(first_row + static_cast<int>(row));
    sequence.states.insert(sequence.states.end(), states.begin(), states.end());
  }
}

void Many::end(Sequence& sequence, bool cancelled) {
  DecodeResult decoded = sequence.task.result(cancelled);
  results_[sequence.index] = {.token_ids = std::move(decoded.token_ids),
                              .finish_reason = std::string(to_string(decoded.finish_reason)),
                              .logprobs = std::move(decoded.logprobs),
                              .hidden_states = {}};
  if (width_ > 0) {
    results_[sequence.index].hidden_states = {
        .n_tokens = sequence.states.size() / width_,
        .n_layers = request_.layers.size(),
        .n_embd = static_cast<std::size_t>(model_.config().hidden_size),
        .values = std::move(sequence.states)};
  }
  ++n_done_;
}

void Many::finish_all() {
  std::size_t next = 0;
  const std::size_t n = request_.prompts.size();
  while (next < n || !active_.empty()) {
    poll();
    const std::size_t done_before = n_done_;
    if (next < n && active_.size() < static_cast<std::size_t>(request_.n_parallel)) {
      start(next++);
      if (n_done_ == done_before && next < n &&
          active_.size() < static_cast<std::size_t>(request_.n_parallel)) {
        continue;  // fill all places first
      }
    }
    if (!active_.empty()) pass();
    if (n_done_ != done_before && request_.on_progress) request_.on_progress(n_done_);
  }
}

std::vector<ManyResult> Many::run() {
  try {
    finish_all();
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kResource, "not enough memory for " +
                                          std::to_string(request_.prompts.size()) +
                                          " results; give fewer prompts at once");
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCancelled) throw;
    for (const auto& sequence : active_) end(*sequence, true);
  }
  for (ManyResult& result : results_) {
    if (result.finish_reason.empty()) result.finish_reason = "cancelled";
  }
  return std::move(results_);
}

}  // namespace

std::vector<ManyResult> generate_many(const LoadedModel& model, const ManyRequest& request) {
  return Many(model, request).run();
}

}  // namespace specdec
