#include "engine/generate_many.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "engine/memory.h"
#include "engine/reading_pace.h"
#include "engine/session.h"
#include "kv/kv_cache.h"
#include "model/runner.h"
#include "sampling/gumbel.h"
#include "sampling/warp.h"
#include "tokenizer/tokenizer.h"

namespace specdec {
namespace {

constexpr std::size_t kMinShared = 8;  // tokens of a common beginning that are worth a copy

struct Sequence {
  std::size_t index = 0;
  KvCache cache;
  std::vector<TokenId> tokens;  // prompt and what followed
  int limit = 0;                // tokens to generate at most
};

class Many {
 public:
  Many(const LoadedModel& loaded, const ManyRequest& request);
  std::vector<ManyResult> run();

 private:
  [[nodiscard]] KvCache cache_for(std::span<const TokenId> unread) const;
  void start(std::size_t index);
  void pass();
  // False when the sequence has ended.
  bool take(Sequence& sequence, int row);
  [[nodiscard]] TokenLogprobs logprobs_of(int row, TokenId token) const;
  void read(std::span<const TokenId> unread, KvCache& cache);
  void finish_all();
  // Throws Error(kCancelled).
  void poll() {
    if (request_.should_cancel && request_.should_cancel()) cancel_.store(true);
    if (cancel_.load()) throw Error(ErrorCode::kCancelled, "cancelled by the caller");
  }

  const LoadedModel& loaded_;
  const Model& model_;
  const ManyRequest& request_;
  std::atomic<bool> own_cancel_{false};
  std::atomic<bool>& cancel_;
  SamplingParams sampling_;
  KvType kv_type_;
  int n_ctx_ = 0;
  OutputKind output_ = OutputKind::kLogits;
  int top_k_ = 1;
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
  const ModelConfig& config = model_.config();
  n_ctx_ = request.n_ctx != 0 ? request.n_ctx : loaded.n_ctx();
  if (n_ctx_ == 0) n_ctx_ = std::min(config.context_length, kDefaultContext);
  const auto check_range = [](const char* option, int value, int min, int max) {
    if (value >= min && value <= max) return;
    throw_invalid(std::string(option) + " must be " + std::to_string(min) + " to " +
                  std::to_string(max) + ", got " + std::to_string(value));
  };
  check_range("n_parallel", request.n_parallel, 1, kMaxParallel);
  check_range("n_ctx", n_ctx_, 1, kMaxContextLength);
  check_range("n_logprobs", request.n_logprobs, -1, kMaxHeadTopK);
  if (request.seeds.size() != request.prompts.size() ||
      request.max_tokens.size() != request.prompts.size()) {
    throw_invalid("there are " + std::to_string(request.prompts.size()) + " prompts, " +
                  std::to_string(request.seeds.size()) + " seeds and " +
                  std::to_string(request.max_tokens.size()) + " max_tokens; expected one of each");
  }
  for (const int n : request.max_tokens)
    check_range("max_tokens", n, -1, std::numeric_limits<int>::max());
  for (std::size_t i = 0; i < request.prompts.size(); ++i) {
    const std::size_t n = request.prompts[i].size();
    if (n == 0) throw_invalid("prompt " + std::to_string(i) + " has no token");
    if (n < static_cast<std::size_t>(n_ctx_)) continue;
    throw Error(ErrorCode::kContextFull, "prompt " + std::to_string(i) + " has " +
                                             std::to_string(n) + " tokens and the context " +
                                             std::to_string(n_ctx_) +
                                             ": no room for one more token");
  }
  const std::uint64_t needed = model_.kv_shape(kv_type_).host_bytes(n_ctx_, kMaxBatchRows) *
                               static_cast<std::uint64_t>(request.n_parallel);
  if (const std::uint64_t available = available_memory_bytes(); needed > available) {
    throw Error(ErrorCode::kResource, std::to_string(request.n_parallel) + " caches of " +
                                          std::to_string(n_ctx_) + " tokens need " +
                                          std::to_string(needed >> 20) + " MiB and " +
                                          std::to_string(available >> 20) +
                                          " MiB are available; use a smaller n_parallel or n_ctx");
  }
  const std::string warning = context_warning(config, n_ctx_);
  if (!warning.empty()) log_message(LogLevel::kWarning, warning);
  for (const TokenId token : loaded.tokenizer().suppressed_ids())
    sampling_.logit_bias.emplace_back(token, -std::numeric_limits<float>::infinity());
  if (request.ignore_eos) {
    for (const TokenId token : loaded.tokenizer().eog_ids())
      sampling_.logit_bias.emplace_back(token, -std::numeric_limits<float>::infinity());
  }
  const int law_top_k = sampling_.needs_only_top(config.n_tokens);
  top_k_ = std::max(law_top_k, request.n_logprobs);
  // The head tells the best tokens and the sum; log-probabilities of others need the row.
  const bool sampled = !sampling_.greedy();
  if (law_top_k > 0 && top_k_ <= std::min(kMaxHeadTopK, config.n_tokens)) {
    output_ = request.n_logprobs < 0 && !sampled ? OutputKind::kArgmax : OutputKind::kTop;
  }
  results_.resize(request.prompts.size());
}

// A new cache, or a fork of that of a running sequence which begins with the same tokens.
KvCache Many::cache_for(std::span<const TokenId> unread) const {
  const Sequence* best = nullptr;
  std::size_t n_best = kMinShared - 1;
  for (const auto& sequence : active_) {
    const auto n_held = static_cast<std::size_t>(sequence->cache.length());
    const auto differs =
        std::mismatch(unread.begin(), unread.end(), sequence->tokens.begin(),
                      sequence->tokens.begin() + static_cast<std::ptrdiff_t>(n_held));
    const auto n = static_cast<std::size_t>(differs.first - unread.begin());
    if (n > n_best && n >= static_cast<std::size_t>(sequence->cache.lowest())) {
      n_best = n;
      best = sequence.get();
    }
  }
  if (best == nullptr) return KvCache(arena_, model_.kv_shape(kv_type_), n_ctx_);
  KvCache cache = best->cache.fork();
  cache.truncate(static_cast<int>(n_best));
  return cache;
}

void Many::start(std::size_t index) {
  const std::vector<TokenId>& prompt = request_.prompts[index];
  const int room = n_ctx_ - static_cast<int>(prompt.size());
  const int wanted = request_.max_tokens[index];
  const int limit = wanted < 0 ? room : std::min(wanted, room);
  if (limit == 0) {
    results_[index].finish_reason = "length";
    ++n_done_;
    return;
  }
  std::span<const TokenId> unread = std::span<const TokenId>(prompt).first(prompt.size() - 1);
  auto sequence = std::make_unique<Sequence>(
      Sequence{.index = index, .cache = cache_for(unread), .tokens = prompt, .limit = limit});
  read(unread.subspan(static_cast<std::size_t>(sequence->cache.length())), sequence->cache);
  active_.push_back(std::move(sequence));
}

void Many::read(std::span<const TokenId> unread, KvCache& cache) {
  while (!unread.empty()) {
    poll();
    const std::size_t n = std::min(unread.size(), static_cast<std::size_t>(pace_.rows()));
    pace_.time(n, [&] {
      runner_.forward({.tokens = unread.first(n), .output = OutputKind::kNone}, cache, &cancel_);
    });
    cache.forget();
    unread = unread.subspan(n);
  }
}

TokenLogprobs Many::logprobs_of(int row, TokenId token) const {
  TokenLogprobs result;
  result.token = token;
  const double sum = static_cast<double>(runner_.results().log_sum_exp(row));
  for (const TopToken& top : runner_.results().top(row)) {
    const double logprob = static_cast<double>(top.logit) - sum;
    if (top.token == token) result.logprob = logprob;
    if (static_cast<int>(result.top.size()) < request_.n_logprobs)
      result.top.emplace_back(top.token, logprob);
  }
  return result;
}

bool Many::take(Sequence& sequence, int row) {
  ManyResult& result = results_[sequence.index];
  SamplingParams params = sampling_;
  params.seed = request_.seeds[sequence.index];
  const std::uint64_t position = sequence.tokens.size();
  std::optional<Distribution> law;
  if (output_ == OutputKind::kTop && !sampling_.greedy()) {
    const std::span<const TopToken> top = runner_.results().top(row);
    const auto needed = static_cast<std::size_t>(sampling_.top_k);
    law = warp_top(top.first(std::min(top.size(), needed)), params, position);
  } else if (output_ == OutputKind::kLogits) {
    law = warp(runner_.results().logits(row), params, sequence.tokens, position);
  }
  const TokenId token =
      law ? gumbel_argmax(*law, params.seed, position) : runner_.results().argmax(row);
  const bool ends = !request_.ignore_eos && loaded_.tokenizer().is_eog(token);
  sequence.tokens.push_back(token);
  if (!ends || request_.keep_eos) {
    result.token_ids.push_back(token);
    if (request_.n_logprobs >= 0) {
      result.logprobs.push_back(
          output_ == OutputKind::kTop
              ? logprobs_of(row, token)
              : token_logprobs(adjusted_logits(runner_.results().logits(row), params,
                                               std::span(sequence.tokens).first(position)),
                               token, request_.n_logprobs));
    }
  }
  if (ends) result.finish_reason = "stop";
  if (!ends && --sequence.limit == 0) result.finish_reason = "length";
  return result.finish_reason.empty();
}

void Many::pass() {
  std::vector<TokenId> tokens;
  std::vector<KvCache*> caches;
  for (const auto& sequence : active_) {
    tokens.push_back(sequence->tokens.back());
    caches.push_back(&sequence->cache);
  }
  for (KvCache* cache : caches) cache->forget();
  runner_.step({.tokens = tokens, .caches = caches, .output = output_, .top_k = top_k_}, &cancel_);
  std::vector<std::unique_ptr<Sequence>> left;
  for (std::size_t i = 0; i < active_.size(); ++i) {
    if (take(*active_[i], static_cast<int>(i))) {
      left.push_back(std::move(active_[i]));
    } else {
      ++n_done_;
    }
  }
  active_ = std::move(left);
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
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCancelled) throw;
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
