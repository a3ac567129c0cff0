// A request at work in the scheduler: its caches, its drafters, its decoding task.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "decode/control/controller.h"
#include "decode/request.h"
#include "decode/task.h"
#include "decode/token_cache.h"
#include "engine/drafter_set.h"
#include "engine/head_scorer.h"
#include "engine/model_scorer.h"
#include "engine/output_text.h"
#include "engine/scheduler.h"
#include "engine/session.h"
#include "engine/telling.h"

namespace specdec {

// What was asked for. `cancelled` from any thread, all else on the scheduler's.
struct Job {
  using Clock = std::chrono::steady_clock;
  GenerateRequest request;
  DecodeRequest decode;  // of it
  std::shared_ptr<RequestSink> sink;
  std::optional<Clock::time_point> deadline;
  KvPageSize most_bytes;  // that its caches can hold
  std::atomic<bool> cancelled{false};

  // The end, which needs no more memory when it comes: what is told of it, and who is told next.
  std::shared_ptr<GenerateResult> result = std::make_shared<GenerateResult>();
  std::exception_ptr error;  // null: the result
  std::shared_ptr<Job> next;
};

// What a lane begins with.
struct LaneStart {
  std::shared_ptr<const LoadedModel> target;
  const SessionOptions* options;
  KvCache cache;                       // holds the prompt's first tokens
  std::optional<KvCache> draft_cache;  // of the draft model, likewise
  int draft_ctx = 0;
  std::span<Drafter* const> keepers;  // as DrafterSet's origin
};

class Lane {
 public:
  Lane(std::shared_ptr<Job> job, LaneStart start, Telling& telling);
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // What comes before the first rows. Throws what a drafter's begin() throws.
  void begin();
  // A drafting that adapts goes on from what others have learnt. Before begin().
  void adapt(const Controller& learnt);
  // Whether the prompt is being read, and how much of it is left; whether all is generated; whether
  // the end has been told.
  [[nodiscard]] bool reads() const { return task_.reads(); }
  [[nodiscard]] int n_unread() const {
    return static_cast<int>(job_->decode.prompt.size()) - 1 -
           std::min(cache_.length(), static_cast<int>(job_->decode.prompt.size()) - 1);
  }
  [[nodiscard]] bool ended() const { return task_.ended(); }
  [[nodiscard]] bool over() const { return over_; }

  // Decides on the next rows; of the prompt at most so many. Throws what a drafter throws.
  void lay_out(int max_reading) { rows_ = task_.next_rows(max_reading); }
  [[nodiscard]] const TaskRows& rows() const { return *rows_; }
  // Whether the rows cannot be part of a shared pass, or are cheaper alone.
  [[nodiscard]] bool needs_own_pass() const { return rows_->steps != nullptr; }
  [[nodiscard]] bool prefers_own_pass() const { return scorer_.n_drafted() > 0; }
  // A pass for these rows only.
  void run_alone();
  // As Task::drop_draft().
  [[nodiscard]] bool drop_draft(double ms) { return task_.drop_draft(ms); }
  // The rows as a part of a pass, and afterwards what came of them: what they cost in it.
  [[nodiscard]] BatchPart part();
  void take(const RowResults& results, double ms);

  // Tells the end. Its caches then hold kept() tokens of the text.
  void finish(const char* reason);  // null: as the task says
  void fail(const std::exception_ptr& error) noexcept;
  // For whoever wants to go on from them; the draft model's may be of another text. That of a head
  // is of no use to others, who would need what the target said besides.
  [[nodiscard]] KvCache& cache() { return scorer_.kv(); }
  [[nodiscard]] std::span<const TokenId> cached_tokens() const;
  [[nodiscard]] KvCache* draft_cache();
  [[nodiscard]] std::span<const TokenId> text() const { return task_.committed(); }
  [[nodiscard]] std::span<const TokenId> draft_cached_tokens() const;

  [[nodiscard]] Job& job() { return *job_; }
  [[nodiscard]] const std::shared_ptr<Job>& shared_job() { return job_; }
  [[nodiscard]] Controller* controller() { return controller_ ? &*controller_ : nullptr; }
  [[nodiscard]] DrafterSet& drafters() { return drafters_; }
  [[nodiscard]] ModelScorer& scorer() { return scorer_; }
  [[nodiscard]] ModelScorer* draft_scorer() { return draft_scorer_ ? &*draft_scorer_ : nullptr; }
  [[nodiscard]] HeadScorer* head_scorer() { return head_scorer_ ? &*head_scorer_ : nullptr; }
  [[nodiscard]] const GenerateResult& result() const { return *result_; }
  // What ended the text, or -1. After finish().
  [[nodiscard]] TokenId stop_token() const { return stop_token_; }
  // Tokens that a pass has brought of late.
  [[nodiscard]] double usual_tokens() const { return usual_tokens_; }
  // Bytes that its caches may still grow by.
  [[nodiscard]] std::uint64_t growth_bytes();

 private:
  using Clock = std::chrono::steady_clock;
  [[nodiscard]] DecodeRequest& prepare(Job& job);
  void tell_progress(int n_read);
  void tell_round(const RoundInfo& round);
  void tell(OutputChunk chunk);
  void note_tokens(std::size_t n_before);
  void read_with_draft();

  std::shared_ptr<Job> job_;
  Telling& telling_;
  ModelScorer scorer_;
  std::optional<ModelScorer> draft_scorer_;
  std::optional<HeadScorer> head_scorer_;
  TokenCache cache_;
  DrafterSet drafters_;
  std::optional<Controller> controller_;
  OutputPieces pieces_;
  OutputText text_;
  std::shared_ptr<GenerateResult> result_;  // the job's
  int n_told_ = -1;
  TokenId stop_token_ = -1;
  bool over_ = false;
  Clock::time_point mark_ = Clock::now();  // of the last piece of the prompt
  double usual_tokens_ = 1.0;
  Task task_;
  const TaskRows* rows_ = nullptr;
  std::vector<std::int32_t> all_rows_;
};

}  // namespace specdec
