#include "engine/lane.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "base/error.h"
#include "decode/decoder.h"
#include "engine/request_parts.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"

namespace specdec {
namespace {

constexpr double kTokensRate = 0.2;  // weight of one pass in what is usual

// A round that outlives the pass.
struct RoundCopy {
  RoundInfo info;
  std::vector<TokenId> drafted;
  std::vector<std::int32_t> parents, accepted;
  std::string drafter, reason;

  explicit RoundCopy(const RoundInfo& round)
      : info(round),
        drafted(round.drafted.begin(), round.drafted.end()),
        parents(round.parents.begin(), round.parents.end()),
        accepted(round.accepted.begin(), round.accepted.end()),
        drafter(round.drafter),
        reason(round.reason) {
    info.drafted = drafted;
    info.parents = parents;
    info.accepted = accepted;
    info.drafter = drafter;
    info.reason = reason;
  }
  RoundCopy(const RoundCopy&) = delete;
  RoundCopy& operator=(const RoundCopy&) = delete;
};

std::span<const TokenId> first_of(std::span<const TokenId> tokens, int n) {
  return tokens.first(std::min(tokens.size(), static_cast<std::size_t>(n)));
}

std::uint64_t lacking(std::uint64_t most, std::uint64_t held) {
  return most > held ? most - held : 0;
}

}  // namespace

Lane::Lane(std::shared_ptr<Job> job, LaneStart start, Telling& telling)
    : job_(std::move(job)),
      telling_(telling),
      scorer_(start.target, std::move(start.cache), start.options->n_ctx),
      cache_(scorer_, first_of(job_->decode.prompt, scorer_.length())),
      drafters_([&] {
        if (start.draft_cache && start.options->draft->model().config().draft_head) {
          head_scorer_.emplace(start.options->draft, start.target, std::move(*start.draft_cache),
                               start.draft_ctx);
        } else if (start.draft_cache) {
          draft_scorer_.emplace(start.options->draft, std::move(*start.draft_cache),
                                start.draft_ctx);
        }
        return DrafterSet(*start.options, scorer_,
                          {.model = draft_scorer(),
                           .draft_tokens = first_of(job_->decode.prompt,
                                                    draft_scorer_ ? draft_scorer_->length() : 0),
                           .head = head_scorer()},
                          {}, start.keepers);
      }()),
      controller_(start.options->adaptive ? std::optional<Controller>(drafters_.traits())
                                          : std::nullopt),
      pieces_(start.target->tokenizer(), job_->request.render_special),
      text_(pieces_),
      result_(job_->result),
      task_({.vocab_size = scorer_.vocab_size(), .n_ctx = scorer_.n_ctx(), .scorer = &scorer_},
            drafters_.list(), controller(), prepare(*job_)) {
  scorer_.set_cancel(&job_->cancelled);
  if (draft_scorer_) draft_scorer_->set_cancel(&job_->cancelled);
  if (head_scorer_) head_scorer_->set_cancel(&job_->cancelled);
  result_->n_prompt_tokens = static_cast<int>(job_->decode.prompt.size());
  result_->seed = job_->request.sampling.seed;
}

// Its callbacks tell the sink what they hear, after the pass.
DecodeRequest& Lane::prepare(Job& job) {
  DecodeRequest& decode = job.decode;
  decode.pieces = &pieces_;
  decode.cancel = &job.cancelled;
  decode.on_chunk = [this](const Chunk& chunk) {
    tell(text_.push(chunk));
    return !job_->cancelled.load();
  };
  decode.on_prompt = [this](int done, int) { tell_progress(done); };
  decode.on_round = [this](const RoundInfo& round) {
    tell_progress(result_->n_prompt_tokens);  // the first pass reads the last token
    tell_round(round);
  };
  return decode;
}

void Lane::tell(OutputChunk chunk) {
  result_->text += chunk.text;
  telling_.add([sink = job_->sink, told = std::move(chunk)] { sink->on_chunk(told); });
}

void Lane::tell_progress(int n_read) {
  const int n_total = result_->n_prompt_tokens;
  n_read = std::min(n_read, n_total);
  if (n_read <= n_told_) return;
  n_told_ = n_read;
  telling_.add([sink = job_->sink, n_read, n_total] { sink->on_progress(n_read, n_total); });
}

void Lane::tell_round(const RoundInfo& round) {
  if (!job_->sink->wants_rounds()) return;
  telling_.add([sink = job_->sink, copy = std::make_shared<const RoundCopy>(round)] {
    sink->on_round(copy->info);
  });
}

void Lane::adapt(const Controller& learnt) {
  SPECDEC_CHECK(controller_.has_value());
  *controller_ = learnt;
}

void Lane::begin() {
  task_.begin();
  const double ms = std::chrono::duration<double, std::milli>(Clock::now() - mark_).count();
  mark_ = Clock::now();
  if (const int n = task_.n_kept(cache_.length()); n < cache_.length())
    cache_.align_to_reachable(job_->decode.prompt, n);
  task_.read_from(cache_.length(), ms);
}

BatchPart Lane::part() {
  const Batch& batch = rows_->batch;
  return {.tokens = batch.tokens,
          .parents = batch.parents,
          .cache = &scorer_.lend(static_cast<int>(batch.tokens.size())),
          .silent = rows_->reading};
}

void Lane::run_alone() {
  const std::size_t n_before = task_.committed().size();
  take_turn(cache_, *rows_, task_);
  note_tokens(n_before);
}

void Lane::take(const RowResults& results, double ms) {
  scorer_.take_back();
  if (rows_->reading) {
    // Others' rows and the pieces of older prompts took their time too.
    const Clock::time_point now = Clock::now();
    const double since = std::chrono::duration<double, std::milli>(now - mark_).count();
    mark_ = now;
    all_rows_.resize(rows_->batch.tokens.size());
    std::iota(all_rows_.begin(), all_rows_.end(), 0);
    cache_.keep(rows_->batch.tokens, all_rows_);
    (void)task_.take(results, since);
    read_with_draft();
    return;
  }
  const std::size_t n_before = task_.committed().size();
  const std::span<const std::int32_t> path = task_.take(results, ms);
  double keep_ms = 0.0;
  {
    const ScopedMs timer(keep_ms);
    cache_.keep(task_.row_tokens(), path);
  }
  task_.commit(keep_ms);
  note_tokens(n_before);
}

// A draft model that is going to read all of the prompt does so piece by piece as well, so that
// nobody waits for the whole.
void Lane::read_with_draft() {
  TokenCache* const cache = drafters_.draft_cache();
  if (controller_ || cache == nullptr || !task_.runs_draft_model()) return;
  const std::span<const TokenId> read =
      first_of(cache_.tokens(), std::min(cache_.length(), draft_scorer_->n_ctx() - 1));
  const std::span<const TokenId> held = cache->tokens();
  if (held.size() >= read.size() || !std::equal(held.begin(), held.end(), read.begin())) return;
  // Behind a beginning that others had read it may lack more than the target reads in a turn.
  const std::span<const TokenId> piece = first_of(read.subspan(held.size()), kMaxBatchRows);
  const int vocab_size = draft_scorer_->vocab_size();
  if (std::any_of(piece.begin(), piece.end(), [&](TokenId t) { return t >= vocab_size; })) return;
  try {
    cache->append(piece, RowOutput::kNone);
  } catch (const Error&) {  // the drafter meets it in its own time, and tells
  }
}

void Lane::note_tokens(std::size_t n_before) {
  const auto n = static_cast<double>(task_.committed().size() - n_before);
  if (n > 0) usual_tokens_ += kTokensRate * (n - usual_tokens_);
}

void Lane::finish(const char* reason) {
  DecodeResult decoded = task_.result(reason != nullptr);
  if (reason == nullptr && decoded.finish_reason != FinishReason::kCancelled)
    tell_progress(result_->n_prompt_tokens);
  if (OutputChunk rest = text_.flush(); !rest.text.empty()) tell(std::move(rest));
  stop_token_ = decoded.stop_token;
  put_result(std::move(decoded), *result_);
  if (reason != nullptr) result_->finish_reason = reason;
  telling_.end(job_);
  over_ = true;
  // The contract of caches: all of the text but its last token, as far as it was read.
  const std::span<const TokenId> text = task_.committed();
  try {
    cache_.align(text, static_cast<int>(text.size()) - 1);
    task_.align();
  } catch (...) {  // align has forgotten the tokens first
  }
}

void Lane::fail(const std::exception_ptr& error) noexcept {
  telling_.end(job_, error);
  over_ = true;
}

std::span<const TokenId> Lane::cached_tokens() const {
  return first_of(cache_.tokens(), scorer_.kv().length());
}

KvCache* Lane::draft_cache() { return draft_scorer_ ? &draft_scorer_->kv() : nullptr; }

std::span<const TokenId> Lane::draft_cached_tokens() const {
  if (drafters_.draft_cache() == nullptr) return {};
  return first_of(drafters_.draft_cache()->tokens(), draft_scorer_->kv().length());
}

std::uint64_t Lane::growth_bytes() {
  std::uint64_t held = cache().n_bytes();
  if (draft_scorer_) held += draft_scorer_->kv().n_bytes();
  if (head_scorer_) held += head_scorer_->kv().n_bytes();
  return lacking(job_->most_bytes.host_bytes + job_->most_bytes.device_bytes, held);
}

}  // namespace specdec
