// One request as a state machine: it says which rows it wants scored, and takes what came of them.
// It knows no model and no cache of the target: one request alone, several in one pass, and whoever
// else can score rows, drive the same class.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/rows.h"
#include "decode/control/controller.h"
#include "decode/drafter.h"
#include "decode/drafting.h"
#include "decode/request.h"
#include "decode/target_rows.h"
#include "decode/task_output.h"
#include "decode/verifier.h"

namespace specdec {

// Rows behind what the target's cache holds of the text.
struct TaskRows {
  Batch batch;
  bool reading = false;  // a part of the prompt: no results, and all rows stay
  // Not null: the rows follow steps of a draft, with these picks, as in TokenScorer::issue(), and
  // conclude() is to be called before they are kept.
  Steps* steps = nullptr;
  TokenScorer* draft = nullptr;
  std::span<const std::int32_t> picks = {};
};

// Who scores the rows, as far as a request needs to know.
struct TaskTarget {
  int vocab_size = 0;
  int n_ctx = 0;
  const TokenScorer* scorer = nullptr;  // that may follow a draft; null: none does
};

// Its life:
//
//   begin(); read from(n)                      n tokens of the prompt are in the cache already
//   while (rows = next_rows())
//     the rows are scored; with steps in two phases: issue, finish, n = conclude(), keep(n)
//     path = take(results, ms)                 reading: empty, and no more is to be done
//     the rows of the path stay in the target's cache, the others are dropped
//     commit(ms)
//   result()
//
// An exception from any of them, a callback's included, ends the request; committed() then says
// what was decided, and align() brings the drafters in line with it. Not thread-safe.
class Task {
 public:
  // Everything must outlive it. Throws Error: kInvalidArgument for bad options; kContextFull when
  // the prompt leaves no room for one token.
  Task(const TaskTarget& target, std::span<Drafter* const> drafters, Controller* controller,
       const DecodeRequest& request);
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;

  // May throw what a drafter's begin() throws.
  void begin();
  // How many of n_cached tokens of the prompt that the target's cache holds are not worth reading
  // again. After begin().
  [[nodiscard]] int n_kept(int n_cached) { return drafting_.n_kept(request_.prompt, n_cached); }
  // So many tokens of the prompt, fewer than it has, are in the target's cache; ms: what bringing
  // the cache in line took.
  void read_from(int n_cached, double ms);

  // Null: it has ended. Of the prompt at most max_reading rows at once. What it returns lives until
  // the next call. Throws Error(kCancelled).
  [[nodiscard]] const TaskRows* next_rows(int max_reading = kMaxBatchRows);
  // After scoring the rows has failed with kNumerical: whether it was for a draft, which the rows
  // are then without. Behind a token that is refused it is no matter what the target makes of it.
  // ms: what that took.
  [[nodiscard]] bool drop_draft(double ms);
  // When the steps are made: how many of the rows count.
  [[nodiscard]] int conclude();
  // ms: what scoring took, steps included. Throws Error(kNumerical) when logits are not finite.
  [[nodiscard]] std::span<const std::int32_t> take(const RowResults& results, double ms);
  // The drafters learn of it, and what is final is handed out. ms: what keeping the rows took.
  void commit(double ms);

  // Whether there is more of the prompt to read; whether there is nothing more to score.
  [[nodiscard]] bool reads() const { return n_read_ + 1 < static_cast<int>(n_prompt()); }
  [[nodiscard]] bool ended() const {
    return !reads() && (n_generated() >= limit_ || output_.ended() || callback_stopped_);
  }
  [[nodiscard]] DecodeResult result(bool cancelled);

  // Prompt and everything generated so far.
  [[nodiscard]] std::span<const TokenId> committed() const { return committed_; }
  // Tokens that the rows of next_rows() have, once they are known.
  [[nodiscard]] std::span<const TokenId> row_tokens() const { return batch_tokens_; }
  // Whether a draft model is going to draft.
  [[nodiscard]] bool runs_draft_model() const { return drafting_.runs_model(); }
  // Tokens to generate at most.
  [[nodiscard]] int limit() const { return limit_; }
  void align() { drafting_.align(committed_); }

 private:
  using Clock = ScopedMs::Clock;

  void choose_output();
  const TaskRows* next_reading(int max_rows);
  [[nodiscard]] Draft draft();
  void check_proposal() const;
  void lay_out_rows();
  void tell_round(const Verdict& verdict);
  void take_tokens(const Verdict& verdict, const RowResults& results, const WarpedRows& rows);
  // Taps of these rows, one after the other; empty: none were asked for.
  void copy_taps(const RowResults& results, std::span<const std::int32_t> rows);
  [[nodiscard]] std::vector<TokenId> best_tokens(const RowResults& results, int row, int n) const;
  void add_note(const std::string& note);
  [[nodiscard]] std::size_t n_prompt() const { return request_.prompt.size(); }
  [[nodiscard]] int n_generated() const { return static_cast<int>(committed_.size() - n_prompt()); }
  [[nodiscard]] std::span<const TokenId> generated() const {
    return std::span<const TokenId>(committed_).subspan(n_prompt());
  }

  const TaskTarget target_;
  const DecodeRequest& request_;
  SamplingParams sampling_;  // with ignore_eos turned into bans
  const Verifier& verifier_;
  TaskOutput output_;
  RowOutput row_output_ = RowOutput::kLogits;
  int top_k_ = 1;  // of RowOutput::kTop
  int limit_ = 0;
  Drafting drafting_;
  std::vector<TokenId> committed_;
  int n_read_ = 0;  // of the prompt

  // Of the present pass.
  Draft draft_;
  TaskRows rows_;
  std::vector<TokenId> batch_tokens_;
  std::vector<std::int32_t> batch_parents_, picks_;
  std::vector<std::int32_t> accepted_;  // of the proposal
  std::vector<std::int32_t> path_;      // rows that stay
  int n_new_ = 0;
  double conclude_ms_ = 0.0;
  Reading reading_;  // of the pass
  double verify_ms_ = 0.0, sample_ms_ = 0.0;
  std::vector<std::vector<TokenId>> target_top_k_;  // [n_new_], when a drafter wants it
  std::vector<std::vector<TokenId>> row_top_k_;     // [rows], likewise
  std::vector<float> tapped_;                       // of the rows that new tokens follow, likewise

  std::int64_t pass_ = 0;
  bool callback_stopped_ = false;
  Clock::time_point start_ = Clock::now();
  DecodeResult result_;
};

}  // namespace specdec
