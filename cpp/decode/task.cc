#include "decode/task.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "decode/token_cache.h"

namespace specdec {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();

SamplingParams with_bans(const DecodeRequest& request) {
  SamplingParams params = request.sampling;
  if (request.ignore_eos) {
    for (const TokenId token : request.eog) params.logit_bias.emplace_back(token, kBanned);
  }
  return params;
}

}  // namespace

Task::Task(const TaskTarget& target, std::span<Drafter* const> drafters, Controller* controller,
           const DecodeRequest& request)
    : target_(target),
      request_(request),
      sampling_((request.validate(target.vocab_size), with_bans(request))),
      verifier_(resolve_verifier(request.verifier, sampling_)),
      output_(request),
      drafting_(drafters, controller, request),
      committed_(request.prompt) {
  const int room = target_.n_ctx - static_cast<int>(n_prompt());
  if (room < 1) {
    throw Error(ErrorCode::kContextFull,
                "the prompt has " + std::to_string(n_prompt()) + " tokens and the context " +
                    std::to_string(target_.n_ctx) +
                    ": no room for one more token; shorten the prompt or use a larger n_ctx");
  }
  limit_ = std::min(request.max_tokens.value_or(room), room);
  result_.stats.prompt_tokens = static_cast<std::int64_t>(n_prompt());
  choose_output();
}

// Whole rows only when somebody reads them.
void Task::choose_output() {
  const int needed =
      request_.constraint != nullptr ? 0 : sampling_.needs_only_top(target_.vocab_size);
  top_k_ = std::max(needed, drafting_.wanted_top_k());
  const bool wants_logprobs = request_.n_logprobs.has_value();
  if (wants_logprobs && request_.logprobs_of_best) top_k_ = std::max(top_k_, *request_.n_logprobs);
  const bool best_suffice = needed > 0 && top_k_ <= kMaxTopK;
  if (!best_suffice || (wants_logprobs && !request_.logprobs_of_best)) {
    row_output_ = RowOutput::kLogits;
  } else {
    row_output_ = top_k_ == 1 && !wants_logprobs ? RowOutput::kArgmax : RowOutput::kTop;
  }
}

void Task::begin() {
  drafting_.begin({.sampling = sampling_,
                   .eog = request_.eog,
                   .vocab_size = target_.vocab_size,
                   .verifier = verifier_.traits(),
                   .target = target_.scorer,
                   .memory_key = request_.memory_key,
                   .cancel = request_.cancel},
                  request_.prompt);
  result_.stats.reproducible =
      sampling_.greedy() || verifier_.traits().position_noise || !drafting_.varies();
}

void Task::read_from(int n_cached, double ms) {
  SPECDEC_CHECK(n_cached >= 0 && n_cached < static_cast<int>(n_prompt()));
  const ScopedMs timer(result_.stats.prompt_ms);
  result_.stats.prompt_ms += ms;
  n_read_ = n_cached;
  result_.stats.reused_prompt_tokens = n_cached;
  if (request_.on_prompt) request_.on_prompt(n_read_, static_cast<int>(n_prompt()) - 1);
}

const TaskRows* Task::next_rows(int max_reading) {
  if (reads()) return next_reading(max_reading);
  if (ended()) return nullptr;
  throw_if_cancelled(request_.cancel);
  draft_ = draft();
  lay_out_rows();
  return &rows_;
}

const TaskRows* Task::next_reading(int max_rows) {
  throw_if_cancelled(request_.cancel);
  const std::span<const TokenId> prompt = request_.prompt;
  const auto at = static_cast<std::size_t>(n_read_);
  const std::size_t n = std::min(n_prompt() - 1 - at, static_cast<std::size_t>(max_rows));
  rows_ = {.batch = {.tokens = prompt.subspan(at, n),
                     .first_output_row = static_cast<int>(n),
                     .output = RowOutput::kNone,
                     .taps = drafting_.wanted_taps()},
           .reading = true};
  return &rows_;
}

Draft Task::draft() {
  // The pass itself yields one token; and limit_ keeps all of them inside the context.
  const int max_tokens = limit_ - n_generated() - 1;
  const int n_free_slots = target_.n_ctx - static_cast<int>(committed_.size());
  if (request_.constraint != nullptr) {
    Draft forced = drafting_.forced(generated(), std::min(max_tokens, n_free_slots));
    if (!forced.proposal.empty()) return forced;
  }
  RngChance rng(sampling_.seed, static_cast<std::uint64_t>(pass_), committed_.size(),
                RngStream::kDraft);
  return drafting_.next(committed_, max_tokens, n_free_slots,
                        request_.chance != nullptr ? *request_.chance : rng);
}

void Task::check_proposal() const {
  const DraftProposal& proposal = draft_.proposal;
  const int n = proposal.size();
  SPECDEC_CHECK(proposal.parents.empty() || proposal.parents.size() == proposal.tokens.size());
  SPECDEC_CHECK(proposal.probs.empty() || proposal.probs.size() == proposal.tokens.size());
  for (int i = 0; i < n; ++i) {
    const TokenId token = proposal.tokens[static_cast<std::size_t>(i)];
    SPECDEC_CHECK(token >= 0 && token < target_.vocab_size);
    SPECDEC_CHECK(proposal.parent(i) >= -1 && proposal.parent(i) < i);
  }
  if (!verifier_.traits().trees && !proposal.is_chain()) {
    throw_invalid("verifier '" + std::string(verifier_.name()) +
                  "' takes chains only, but drafter '" + std::string(draft_.drafter) +
                  "' proposes trees");
  }
}

// Row 0 is the last committed token, row i + 1 proposal token i; of a plan, what may become that.
void Task::lay_out_rows() {
  check_proposal();
  const DraftProposal& proposal = draft_.proposal;
  const bool planned = draft_.plan.has_value();
  batch_tokens_.assign(1, committed_.back());
  if (planned) {
    batch_tokens_.resize(1 + draft_.plan->picks.size(), 0);
    picks_.assign(1, -1);
    picks_.insert(picks_.end(), draft_.plan->picks.begin(), draft_.plan->picks.end());
  } else {
    batch_tokens_.insert(batch_tokens_.end(), proposal.tokens.begin(), proposal.tokens.end());
  }
  batch_parents_.clear();
  if (planned ? !draft_.plan->parents.empty() : !proposal.is_chain()) {
    batch_parents_.push_back(-1);
    for (const std::int32_t parent : planned ? draft_.plan->parents : proposal.parents)
      batch_parents_.push_back(parent + 1);
  }
  rows_ = {.batch = {.tokens = batch_tokens_,
                     .parents = batch_parents_,
                     .first_output_row = 0,
                     .output = row_output_,
                     .top_k = top_k_,
                     .taps = drafting_.wanted_taps()}};
  if (!planned) return;
  rows_.steps = &draft_.plan->steps;
  rows_.draft = draft_.plan->scorer;
  rows_.picks = picks_;
}

// One that was drawn stays: another text would come of it if what it says decided that.
bool Task::drop_draft(double ms) {
  if (rows_.reading || draft_.plan || draft_.proposal.empty() || !draft_.proposal.deterministic())
    return false;
  draft_.proposal = {};
  draft_.drafter = {};
  draft_.reason = "what the target says of the draft is not finite";
  drafting_.drop_draft(ms);
  result_.stats.verify_ms += ms;
  lay_out_rows();
  return true;
}

// Rows behind what is proposed have been fed for nothing.
int Task::conclude() {
  SPECDEC_CHECK(draft_.plan.has_value());
  const ScopedMs timer(conclude_ms_);
  drafting_.conclude(draft_);
  check_proposal();
  return 1 + draft_.proposal.size();
}

std::span<const std::int32_t> Task::take(const RowResults& results, double ms) {
  DecodeStats& stats = result_.stats;
  if (rows_.reading) {
    const ScopedMs timer(stats.prompt_ms);
    stats.prompt_ms += ms;
    n_read_ += static_cast<int>(rows_.batch.tokens.size());
    drafting_.note_reading(results.reading());
    if (!rows_.batch.taps.empty()) {
      std::vector<std::int32_t> rows(rows_.batch.tokens.size());
      std::iota(rows.begin(), rows.end(), 0);
      copy_taps(results, rows);
      drafting_.read({.text = request_.prompt,
                      .first_row = n_read_ - static_cast<int>(rows.size()),
                      .taps = tapped_});
    }
    if (request_.on_prompt) request_.on_prompt(n_read_, static_cast<int>(n_prompt()) - 1);
    return {};
  }
  verify_ms_ = ms - conclude_ms_;
  reading_ = results.reading();
  if (draft_.plan) {
    const double draft_ms = draft_.plan->steps.share * verify_ms_;
    drafting_.add_draft_ms(draft_ms);
    verify_ms_ -= draft_ms;
    batch_tokens_.resize(1);
    batch_tokens_.insert(batch_tokens_.end(), draft_.proposal.tokens.begin(),
                         draft_.proposal.tokens.end());
  }
  conclude_ms_ = 0.0;
  stats.verify_ms += verify_ms_;
  double callback_ms = 0.0;  // the caller's own time is no cost of a draft
  {
    const ScopedMs timer(sample_ms_ = 0.0);
    WarpedRows rows(results, target_.vocab_size, row_output_, sampling_, committed_,
                    draft_.proposal, request_.constraint, n_prompt());
    RngChance rng(sampling_.seed, static_cast<std::uint64_t>(pass_), committed_.size());
    Verdict verdict = verifier_.verify(draft_.proposal, rows,
                                       request_.chance != nullptr ? *request_.chance : rng);
    rows.require(-1);
    stats.candidate_positions += verdict.candidates.positions;
    stats.in_set_sum += verdict.candidates.in_set;
    stats.candidate_hits += verdict.candidates.accepted;
    if (request_.on_round) {
      const ScopedMs callback_timer(callback_ms);
      tell_round(verdict);
    }
    const std::size_t before = committed_.size();
    take_tokens(verdict, results, rows);
    n_new_ = static_cast<int>(committed_.size() - before);
    accepted_ = std::move(verdict.accepted);
  }
  stats.sample_ms += sample_ms_;
  sample_ms_ -= callback_ms;
  path_.assign(1, 0);
  for (const std::int32_t row : accepted_) path_.push_back(row + 1);
  copy_taps(results, std::span<const std::int32_t>(path_).first(static_cast<std::size_t>(n_new_)));
  return path_;
}

void Task::copy_taps(const RowResults& results, std::span<const std::int32_t> rows) {
  tapped_.clear();
  if (rows_.batch.taps.empty()) return;
  for (const std::int32_t row : rows) {
    const std::span<const float> taps = results.taps(row);
    tapped_.insert(tapped_.end(), taps.begin(), taps.end());
  }
}

void Task::tell_round(const Verdict& verdict) {
  request_.on_round({.index = pass_,
                     .drafted = draft_.proposal.tokens,
                     .parents = draft_.proposal.parents,
                     .accepted = verdict.accepted,
                     .next_token = verdict.next_token,
                     .drafter = draft_.drafter,
                     .reason = draft_.reason});
}

// Passes the verdict's tokens through the stop conditions one by one.
void Task::take_tokens(const Verdict& verdict, const RowResults& results, const WarpedRows& rows) {
  const DraftProposal& proposal = draft_.proposal;
  output_.begin_pass(proposal);
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
    if (!output_.ended()) rows.require(row);
    if (!output_.push(token, drafted ? i + 1 : 0)) continue;
    tokens.push_back(token);
    if (request_.n_logprobs) {
      output_.push_logprobs(row_output_ == RowOutput::kTop
                                ? token_logprobs(results.top(row + 1), results.log_sum_exp(row + 1),
                                                 token, *request_.n_logprobs)
                                : token_logprobs(rows.adjusted(row), token, *request_.n_logprobs));
    }
    if (top_k > 0) target_top_k_.push_back(best_tokens(results, row + 1, top_k));
    if (drafted) row = at;
  }
  row_top_k_.clear();
  if (top_k > 0 && drafting_.wants_all_rows()) {
    for (int r = 0; r <= proposal.size(); ++r) row_top_k_.push_back(best_tokens(results, r, top_k));
  }
  committed_.insert(committed_.end(), tokens.begin(), tokens.end());
}

// The target's best tokens after row r of the pass.
std::vector<TokenId> Task::best_tokens(const RowResults& results, int row, int n) const {
  if (row_output_ == RowOutput::kArgmax) return {results.argmax(row)};
  if (row_output_ == RowOutput::kLogits) return top_k_tokens(results.logits(row), n);
  std::vector<TokenId> tokens;
  for (const TopToken& top : results.top(row)) {
    if (static_cast<int>(tokens.size()) < n) tokens.push_back(top.token);
  }
  return tokens;
}

void Task::commit(double ms) {
  if (rows_.reading) return;
  DecodeStats& stats = result_.stats;
  stats.sample_ms += ms;
  ++pass_;
  if (stats.time_to_first_token_ms == 0.0) stats.time_to_first_token_ms = ScopedMs::since(start_);
  drafting_.commit({.committed = committed_,
                    .n_new = n_new_,
                    .target_top_k = target_top_k_,
                    .row_tokens = batch_tokens_,
                    .row_top_k = row_top_k_,
                    .taps = tapped_},
                   accepted_, verify_ms_ + sample_ms_ + ms, reading_);
  if (!output_.ended() && !output_.release(generated(), false)) callback_stopped_ = true;
}

void Task::add_note(const std::string& note) {
  result_.stats.note += (result_.stats.note.empty() ? "" : "; ") + note;
}

DecodeResult Task::result(bool cancelled) {
  DecodeStats& stats = result_.stats;
  stats.total_ms = ScopedMs::since(start_);
  drafting_.end_request();
  stats.draft_ms = drafting_.draft_ms();
  stats.speculation = drafting_.speculation();
  stats.note = drafting_.failures();
  if (!stats.reproducible) {
    add_note("the seed alone does not give this text again: under verifier '" +
             std::string(verifier_.name()) +
             "' it depends on the drafts, and these on measured times or earlier calls");
  }
  if (callback_stopped_) {
    output_.drop_unreleased();
    cancelled = true;
  } else if (!output_.release(generated(), true)) {
    cancelled = cancelled || !output_.ended();
  }
  output_.put(generated(), result_);
  committed_.resize(n_prompt() + result_.token_ids.size());
  if (cancelled) {
    result_.finish_reason = FinishReason::kCancelled;
  } else if (output_.ended()) {
    result_.finish_reason = FinishReason::kStop;
    output_.put_stop(result_);
  } else {
    result_.finish_reason = FinishReason::kLength;
    if (!request_.max_tokens || *request_.max_tokens > limit_)
      add_note("the context of " + std::to_string(target_.n_ctx) + " tokens is full");
  }
  if (!verifier_.traits().lossless) {
    add_note("verifier '" + std::string(verifier_.name()) +
             "' is not lossless: the text does not follow the target's distribution");
  }
  stats.decode_ms = stats.total_ms - stats.prompt_ms;
  return std::move(result_);
}

}  // namespace specdec
