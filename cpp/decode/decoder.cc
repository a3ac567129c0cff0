#include "decode/decoder.h"

#include <cstdint>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "decode/stats.h"

namespace specdec {
namespace {

// Contract: the target's cache holds the committed tokens but the last, the draft's a prefix of
// that.
class AlignedCaches {
 public:
  AlignedCaches(TokenCache& cache, Task& task) : cache_(cache), task_(task) {}
  ~AlignedCaches() {
    try {
      cache_.align(task_.committed(), static_cast<int>(task_.committed().size()) - 1);
    } catch (...) {  // align has forgotten the tokens first, so the next request drops the rows
    }
    try {
      task_.align();
    } catch (...) {
    }
  }
  AlignedCaches(const AlignedCaches&) = delete;
  AlignedCaches& operator=(const AlignedCaches&) = delete;

 private:
  TokenCache& cache_;
  Task& task_;
};

}  // namespace

void take_turn(TokenCache& cache, const TaskRows& rows, Task& task) {
  TokenScorer& scorer = cache.scorer();
  double ms = 0.0;
  if (rows.reading) {
    {
      const ScopedMs timer(ms);
      std::vector<std::int32_t> all(rows.batch.tokens.size());
      std::iota(all.begin(), all.end(), 0);
      scorer.forward(rows.batch);
      cache.keep(rows.batch.tokens, all);
    }
    (void)task.take(scorer, ms);
    return;
  }
  if (rows.steps == nullptr) {
    try {
      const ScopedMs timer(ms);
      scorer.forward(rows.batch);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kNumerical || !task.drop_draft(ms)) throw;
      const ScopedMs timer(ms = 0.0);
      scorer.forward(rows.batch);
    }
  } else {
    const ScopedMs timer(ms);
    scorer.issue(*rows.draft, *rows.steps, rows.batch, rows.picks);
    scorer.finish();
    scorer.keep(task.conclude());
  }
  const std::span<const std::int32_t> path = task.take(scorer, ms);
  double keep_ms = 0.0;
  {
    const ScopedMs timer(keep_ms);
    cache.keep(task.row_tokens(), path);
  }
  task.commit(keep_ms);
}

DecodeResult Decoder::run(const DecodeRequest& request) {
  TokenScorer& scorer = cache_.scorer();
  Task task({.vocab_size = scorer.vocab_size(), .n_ctx = scorer.n_ctx(), .scorer = &scorer},
            drafters_, controller_, request);
  const AlignedCaches guard(cache_, task);
  bool cancelled = false;
  try {
    task.begin();  // first, because a drafter may refuse its options
    double ms = 0.0;
    {
      const ScopedMs timer(ms);
      cache_.align_to_reachable(request.prompt, static_cast<int>(request.prompt.size()) - 1);
      if (const int n = task.n_kept(cache_.length()); n < cache_.length())
        cache_.align_to_reachable(request.prompt, n);
    }
    task.read_from(cache_.length(), ms);
    while (const TaskRows* rows = task.next_rows()) take_turn(cache_, *rows, task);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCancelled) throw;
    cancelled = true;
  }
  return task.result(cancelled);
}

void Decoder::reset() {
  cache_.clear();
  for (Drafter* drafter : drafters_) drafter->reset();
}

}  // namespace specdec
