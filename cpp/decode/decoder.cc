#include "decode/decoder.h"

#include <algorithm>
#include <limits>
#include <string>

#include "base/error.h"
#include "decode/drafting.h"
#include "decode/target_rows.h"
#include "decode/verifier.h"

namespace specdec {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();

// One request on its way through the loop.
class Run {
 public:
  Run(TokenCache& cache, std::span<Drafter* const> drafters, Controller* controller,
      const DecodeRequest& request);
  ~Run() { settle_caches(); }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  DecodeResult finish_all();

 private:
  void read_prompt();
  void decode();
  [[nodiscard]] Draft draft();
  void check_proposal(const Draft& draft) const;
  void target_pass(const DraftProposal& proposal);
  void pass_behind(Draft& draft);
  void take(const DraftProposal& proposal, const Verdict& verdict, WarpedRows& rows);
  [[nodiscard]] std::vector<TokenId> best_tokens(int row, int n) const;
  void settle_drafters(int n_new, std::span<const std::int32_t> accepted, double verify_ms);
  bool release(bool all);
  void settle_caches() noexcept;
  [[nodiscard]] std::size_t n_prompt() const { return request_.prompt.size(); }
  [[nodiscard]] int n_generated() const { return static_cast<int>(committed_.size() - n_prompt()); }

  using Clock = ScopedMs::Clock;

  TokenCache& cache_;
  const DecodeRequest& request_;
  SamplingParams sampling_;  // with ignore_eos turned into bans
  const Verifier& verifier_;
  StopState stop_;
  RowOutput output_;
  int top_k_ = 1;  // of RowOutput::kTop
  int limit_ = 0;  // tokens to generate at most
  Drafting drafting_;
  std::vector<TokenId> committed_;  // prompt and everything generated so far
  std::vector<TokenId> batch_tokens_;
  std::vector<std::int32_t> batch_parents_;
  std::vector<TokenLogprobs> logprobs_;  // [n generated], when asked for
  std::vector<std::vector<TokenId>>
      target_top_k_;  // [new tokens of this pass], when the drafter wants it
  std::vector<std::vector<TokenId>> row_top_k_;  // [rows of this pass], likewise
  std::vector<std::uint8_t> from_draft_;         // [n generated]
  TokenLedger ledger_;
  std::size_t n_released_ = 0;
  std::int64_t pass_ = 0;
  bool callback_stopped_ = false;
  bool ended_ = false;  // by end-of-sequence or a stop string
  Clock::time_point start_ = Clock::now();
  DecodeResult result_;
};

SamplingParams with_bans(const DecodeRequest& request) {
  SamplingParams params = request.sampling;
  if (request.ignore_eos) {
    for (const TokenId token : request.eog) params.logit_bias.emplace_back(token, kBanned);
  }
  return params;
}

Run::Run(TokenCache& cache, std::span<Drafter* const> drafters, Controller* controller,
         const DecodeRequest& request)
    : cache_(cache),
      request_(request),
      sampling_((request.validate(cache.scorer().vocab_size()), with_bans(request))),
      verifier_(resolve_verifier(request.verifier, sampling_)),
      stop_(request.ignore_eos ? std::span<const TokenId>{} : std::span<const TokenId>(request.eog),
            request.stop, request.pieces),
      drafting_(drafters, controller, request),
      committed_(request.prompt) {
  const int n_ctx = cache_.scorer().n_ctx();
  const int room = n_ctx - static_cast<int>(n_prompt());
  if (room < 1) {
    throw Error(ErrorCode::kContextFull,
                "the prompt has " + std::to_string(n_prompt()) + " tokens and the context " +
                    std::to_string(n_ctx) +
                    ": no room for one more token; shorten the prompt or use a larger n_ctx");
  }
  limit_ = std::min(request.max_tokens.value_or(room), room);

  DecodeStats& stats = result_.stats;
  stats.prompt_tokens = static_cast<std::int64_t>(n_prompt());
  // Whole rows only when somebody reads them.
  const int law_top_k = sampling_.needs_only_top(cache_.scorer().vocab_size());
  top_k_ = std::max(law_top_k, drafting_.wanted_top_k());
  if (request.n_logprobs.has_value() || law_top_k == 0 || top_k_ > kMaxTopK) {
    output_ = RowOutput::kLogits;
  } else {
    output_ = top_k_ == 1 ? RowOutput::kArgmax : RowOutput::kTop;
  }
}

// Contract: the target's cache holds the committed tokens but the last, the draft's a prefix of
// that.
void Run::settle_caches() noexcept {
  try {
    cache_.align(committed_, static_cast<int>(committed_.size()) - 1);
  } catch (...) {  // align has forgotten the tokens first, so the next request drops the rows
  }
  try {
    drafting_.align(committed_);
  } catch (...) {
  }
}

void Run::read_prompt() {
  DecodeStats& stats = result_.stats;
  const ScopedMs timer(stats.prompt_ms);
  const int wanted = static_cast<int>(n_prompt()) - 1;
  cache_.align(request_.prompt, wanted);
  stats.reused_prompt_tokens = cache_.length();
  if (request_.on_prompt) request_.on_prompt(cache_.length(), wanted);
  const auto on_piece = [&](int length) {
    if (request_.on_prompt) request_.on_prompt(length, wanted);
  };
  const std::span<const TokenId> prompt = request_.prompt;
  cache_.read(prompt.first(n_prompt() - 1).subspan(static_cast<std::size_t>(cache_.length())),
              request_.cancel, on_piece);
}

Draft Run::draft() {
  // The pass itself yields one token; and limit_ keeps all of them inside the context.
  const int max_tokens = limit_ - n_generated() - 1;
  const int n_free_slots = cache_.scorer().n_ctx() - static_cast<int>(committed_.size());
  RngChance rng(sampling_.seed, static_cast<std::uint64_t>(pass_), committed_.size(),
                RngStream::kDraft);
  Draft draft = drafting_.next(committed_, max_tokens, n_free_slots,
                               request_.chance != nullptr ? *request_.chance : rng);
  check_proposal(draft);
  return draft;
}

void Run::check_proposal(const Draft& draft) const {
  const DraftProposal& proposal = draft.proposal;
  const int n = proposal.size();
  const int vocab_size = cache_.scorer().vocab_size();
  SPECDEC_CHECK(proposal.parents.empty() || proposal.parents.size() == proposal.tokens.size());
  SPECDEC_CHECK(proposal.probs.empty() || proposal.probs.size() == proposal.tokens.size());
  for (int i = 0; i < n; ++i) {
    const TokenId token = proposal.tokens[static_cast<std::size_t>(i)];
    SPECDEC_CHECK(token >= 0 && token < vocab_size);
    SPECDEC_CHECK(proposal.parent(i) >= -1 && proposal.parent(i) < i);
  }
  if (!verifier_.traits().trees && !proposal.is_chain()) {
    throw_invalid("verifier '" + std::string(verifier_.name()) +
                  "' takes chains only, but drafter '" + std::string(draft.source) +
                  "' proposes trees");
  }
}

// Row 0 is the last committed token, row i + 1 proposal token i.
void Run::target_pass(const DraftProposal& proposal) {
  const ScopedMs timer(result_.stats.verify_ms);
  batch_tokens_.assign(1, committed_.back());
  batch_tokens_.insert(batch_tokens_.end(), proposal.tokens.begin(), proposal.tokens.end());
  batch_parents_.clear();
  if (!proposal.is_chain()) {
    batch_parents_.push_back(-1);
    for (const std::int32_t parent : proposal.parents) batch_parents_.push_back(parent + 1);
  }
  cache_.scorer().forward({.tokens = batch_tokens_,
                           .parents = batch_parents_,
                           .first_output_row = 0,
                           .output = output_,
                           .top_k = top_k_});
}

// The same for a draft that comes with the pass: the draft model and the target wait once, for
// both. Rows behind what is proposed have been fed for nothing.
void Run::pass_behind(Draft& draft) {
  const DraftPlan& plan = *draft.plan;
  batch_tokens_.assign(plan.sources.size() + 1, 0);
  batch_tokens_[0] = committed_.back();
  std::vector<std::int32_t> sources = {-1};
  sources.insert(sources.end(), plan.sources.begin(), plan.sources.end());
  batch_parents_.clear();
  if (!plan.parents.empty()) {
    batch_parents_.push_back(-1);
    for (const std::int32_t parent : plan.parents) batch_parents_.push_back(parent + 1);
  }
  const ScorerBatch batch = {.tokens = batch_tokens_,
                             .parents = batch_parents_,
                             .first_output_row = 0,
                             .output = output_,
                             .top_k = top_k_};
  double ms = 0.0;
  double conclude_ms = 0.0;
  {
    const ScopedMs timer(ms);
    cache_.scorer().forward_behind(draft.plan->chain, batch, sources, [&] {
      const ScopedMs conclude_timer(conclude_ms);
      drafting_.conclude(draft);
      check_proposal(draft);
      return 1 + draft.proposal.size();
    });
  }
  const double draft_ms = plan.chain.share * (ms - conclude_ms);
  drafting_.add_draft_ms(draft_ms);
  result_.stats.verify_ms += ms - conclude_ms - draft_ms;
  batch_tokens_.resize(1);
  batch_tokens_.insert(batch_tokens_.end(), draft.proposal.tokens.begin(),
                       draft.proposal.tokens.end());
}

// Passes the verdict's tokens through the stop conditions one by one.
void Run::take(const DraftProposal& proposal, const Verdict& verdict, WarpedRows& rows) {
  std::vector<int> per_depth;
  std::vector<int> depth(proposal.tokens.size());
  for (int i = 0; i < proposal.size(); ++i) {
    const std::int32_t parent = proposal.parent(i);
    const int d = parent < 0 ? 0 : depth[static_cast<std::size_t>(parent)] + 1;
    depth[static_cast<std::size_t>(i)] = d;
    if (per_depth.size() <= static_cast<std::size_t>(d))
      per_depth.resize(static_cast<std::size_t>(d) + 1);
    ++per_depth[static_cast<std::size_t>(d)];
  }
  ledger_.begin_pass(proposal.size(), per_depth);
  target_top_k_.clear();
  const int top_k = drafting_.wanted_top_k();
  const int n_accepted = static_cast<int>(verdict.accepted.size());
  std::vector<TokenId> tokens;  // committed_ must not grow yet: `rows` looks at it
  int row = -1;                 // the target row that decided token i
  for (int i = 0; i <= n_accepted; ++i) {
    const bool drafted = i < n_accepted;
    const std::int32_t at = drafted ? verdict.accepted[static_cast<std::size_t>(i)] : -1;
    const TokenId token =
        drafted ? proposal.tokens[static_cast<std::size_t>(at)] : verdict.next_token;
    const int draft_depth = drafted ? i + 1 : 0;
    if (ended_) {
      ledger_.add_unused(draft_depth);
      continue;
    }
    ledger_.add(draft_depth);
    ended_ = stop_.push(token);
    tokens.push_back(token);
    from_draft_.push_back(drafted ? 1 : 0);
    if (request_.n_logprobs) {
      logprobs_.push_back(token_logprobs(rows.adjusted(row), token, *request_.n_logprobs));
    }
    if (top_k > 0) target_top_k_.push_back(best_tokens(row + 1, top_k));
    if (drafted) row = at;
  }
  row_top_k_.clear();
  if (top_k > 0 && drafting_.wants_all_rows()) {
    for (int r = 0; r <= proposal.size(); ++r) row_top_k_.push_back(best_tokens(r, top_k));
  }
  committed_.insert(committed_.end(), tokens.begin(), tokens.end());
}

// The target's best tokens after row r of the last pass.
std::vector<TokenId> Run::best_tokens(int row, int n) const {
  const TokenScorer& scorer = cache_.scorer();
  if (output_ == RowOutput::kArgmax) return {scorer.argmax(row)};
  if (output_ == RowOutput::kLogits) return top_k_tokens(scorer.logits(row), n);
  std::vector<TokenId> tokens;
  for (const TopToken& top : scorer.top(row)) {
    if (static_cast<int>(tokens.size()) < n) tokens.push_back(top.token);
  }
  return tokens;
}

void Run::settle_drafters(int n_new, std::span<const std::int32_t> accepted, double verify_ms) {
  drafting_.settle({.committed = committed_,
                    .n_new = n_new,
                    .target_top_k = target_top_k_,
                    .row_tokens = batch_tokens_,
                    .row_top_k = row_top_k_},
                   accepted, verify_ms, cache_.scorer().reading());
}

// Hands out tokens that no stop string can reach any more. False when the caller had enough.
bool Run::release(bool all) {
  const std::size_t end = all ? stop_.n_kept() : stop_.n_releasable();
  if (end <= n_released_) return true;
  const std::size_t begin = n_released_;
  n_released_ = end;
  if (!request_.on_chunk) return true;
  const std::size_t n = end - begin;
  Chunk chunk;
  chunk.token_ids = std::span<const TokenId>(committed_).subspan(n_prompt() + begin, n);
  chunk.from_draft = std::span<const std::uint8_t>(from_draft_).subspan(begin, n);
  chunk.text = stop_.text(begin, end);
  if (request_.n_logprobs)
    chunk.logprobs = std::span<const TokenLogprobs>(logprobs_).subspan(begin, n);
  return request_.on_chunk(chunk);
}

void Run::decode() {
  DecodeStats& stats = result_.stats;
  while (n_generated() < limit_) {
    throw_if_cancelled(request_.cancel);
    Draft draft = this->draft();
    const DraftProposal& proposal = draft.proposal;
    const double before_ms = stats.verify_ms + stats.sample_ms;
    double callback_ms = 0.0;  // the caller's own time is no cost of a draft
    if (draft.plan) {
      pass_behind(draft);
    } else {
      target_pass(proposal);
    }
    int n_new = 0;
    Verdict verdict;
    {
      const ScopedMs timer(stats.sample_ms);
      WarpedRows rows(cache_.scorer(), output_, sampling_, committed_, proposal);
      RngChance rng(sampling_.seed, static_cast<std::uint64_t>(pass_), committed_.size());
      verdict =
          verifier_.verify(proposal, rows, request_.chance != nullptr ? *request_.chance : rng);
      stats.candidate_positions += verdict.candidates.positions;
      stats.in_set_sum += verdict.candidates.in_set;
      stats.candidate_hits += verdict.candidates.accepted;
      if (request_.on_round) {
        const ScopedMs callback_timer(callback_ms);
        request_.on_round({.index = pass_,
                           .drafted = proposal.tokens,
                           .parents = proposal.parents,
                           .accepted = verdict.accepted,
                           .next_token = verdict.next_token,
                           .source = draft.source,
                           .reason = draft.reason});
      }
      const std::size_t before = committed_.size();
      take(proposal, verdict, rows);
      n_new = static_cast<int>(committed_.size() - before);
      std::vector<std::int32_t> path = {0};
      for (const std::int32_t row : verdict.accepted) path.push_back(row + 1);
      cache_.settle(batch_tokens_, path);
    }
    ++pass_;
    if (stats.time_to_first_token_ms == 0.0) stats.time_to_first_token_ms = ScopedMs::since(start_);
    settle_drafters(n_new, verdict.accepted,
                    stats.verify_ms + stats.sample_ms - before_ms - callback_ms);
    if (ended_) return;
    if (!release(false)) {
      callback_stopped_ = true;
      return;
    }
  }
}

DecodeResult Run::finish_all() {
  DecodeStats& stats = result_.stats;
  bool cancelled = false;
  try {
    // First, because a drafter may refuse its options.
    drafting_.begin({.sampling = sampling_,
                     .eog = request_.eog,
                     .vocab_size = cache_.scorer().vocab_size(),
                     .verifier = verifier_.traits(),
                     .target = &cache_.scorer(),
                     .cancel = request_.cancel},
                    request_.prompt);
    stats.reproducible =
        sampling_.greedy() || verifier_.traits().position_noise || !drafting_.varies();
    read_prompt();
    decode();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCancelled) throw;
    cancelled = true;
  }
  stats.total_ms = ScopedMs::since(start_);
  drafting_.end_request();
  stats.draft_ms = drafting_.draft_ms();
  stats.speculation = drafting_.speculation();
  stats.note = drafting_.failures();
  if (!stats.reproducible) {
    stats.note += (stats.note.empty() ? "" : "; ") +
                  std::string(
                      "the seed alone does not give this "
                      "text again: under verifier '") +
                  std::string(verifier_.name()) +
                  "' it depends on the drafts, and these on measured times or earlier calls";
  }
  if (callback_stopped_) {
    stop_.drop_after(n_released_);
    cancelled = true;
  } else if (!release(true)) {
    cancelled = cancelled || !ended_;
  }
  const std::size_t n_kept = stop_.n_kept();
  committed_.resize(n_prompt() + n_kept);
  from_draft_.resize(n_kept);
  if (request_.n_logprobs) logprobs_.resize(n_kept);

  result_.token_ids.assign(committed_.begin() + static_cast<std::ptrdiff_t>(n_prompt()),
                           committed_.end());
  result_.text = stop_.text(0, n_kept);
  result_.from_draft = std::move(from_draft_);
  result_.logprobs = std::move(logprobs_);
  if (cancelled) {
    result_.finish_reason = FinishReason::kCancelled;
  } else if (ended_) {
    result_.finish_reason = FinishReason::kStop;
    if (stop_.cause() == StopState::Cause::kEndOfSequence) {
      result_.stop_token = stop_.eog_token();
    } else {
      result_.stop_string = stop_.stop_string();
    }
  } else {
    result_.finish_reason = FinishReason::kLength;
    if (!request_.max_tokens || *request_.max_tokens > limit_) {
      if (!stats.note.empty()) stats.note += "; ";
      stats.note += "the context of " + std::to_string(cache_.scorer().n_ctx()) + " tokens is full";
    }
  }
  if (!verifier_.traits().lossless) {
    stats.note += (stats.note.empty() ? "" : "; ") + std::string("verifier '") +
                  std::string(verifier_.name()) +
                  "' is not lossless: the text does not follow the target's law";
  }
  ledger_.count(n_kept, stats);
  stats.decode_ms = stats.total_ms - stats.prompt_ms;
  return std::move(result_);
}

}  // namespace

DecodeResult Decoder::run(const DecodeRequest& request) {
  Run run(cache_, drafters_, controller_, request);
  return run.finish_all();
}

void Decoder::reset() {
  cache_.clear();
  for (Drafter* drafter : drafters_) drafter->reset();
}

}  // namespace specdec
