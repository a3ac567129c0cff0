#include "engine/shared_pass.h"

#include <algorithm>

#include "base/error.h"
#include "decode/stats.h"

namespace specdec {
namespace {

// Passes in vain for one pass; the rows of the lanes run one after the other then.
constexpr int kMostTogether = 2;

int n_rows_of(const Lane& lane) { return static_cast<int>(lane.rows().batch.tokens.size()); }

// Rows of one lane among those of a pass, as that lane asked for them.
class RowsOfLane final : public RowResults {
 public:
  RowsOfLane(const RowResults& all, int first_row, const Batch& batch)
      : all_(all), first_row_(first_row), top_k_(static_cast<std::size_t>(batch.n_best())) {}
  [[nodiscard]] std::span<const float> logits(int row) const override {
    return all_.logits(first_row_ + row);
  }
  [[nodiscard]] TokenId argmax(int row) const override { return all_.argmax(first_row_ + row); }
  [[nodiscard]] std::span<const TopToken> top(int row) const override {
    const std::span<const TopToken> top = all_.top(first_row_ + row);
    return top.first(std::min(top.size(), top_k_));
  }
  [[nodiscard]] float log_sum_exp(int row) const override {
    return all_.log_sum_exp(first_row_ + row);
  }
  [[nodiscard]] std::span<const float> taps(int row) const override {
    return all_.taps(first_row_ + row);
  }
  [[nodiscard]] Reading reading() const override { return all_.reading(); }

 private:
  const RowResults& all_;
  int first_row_;
  std::size_t top_k_;
};

// What all of them can be read from.
void add_output(const Batch& batch, PartsBatch& all) {
  if (batch.output == RowOutput::kLogits) all.keep_logits = true;
  if (batch.output == RowOutput::kTop) all.output = RowOutput::kTop;
  all.top_k = std::max(all.top_k, batch.n_best());
}

Lane* lane_of(int row, std::span<Lane* const> lanes) {
  std::size_t i = 0;
  for (; (row -= n_rows_of(*lanes[i])) >= 0; ++i) SPECDEC_CHECK(i + 1 < lanes.size());
  return lanes[i];
}

}  // namespace

void SharedPass::run(std::span<Lane* const> lanes, CostModel& cost, const std::atomic<bool>& cancel,
                     const OnError& on_error) {
  std::vector<Lane*> together;
  int n_rows = 0;
  const auto flush = [&] {
    if (together.size() == 1 && together[0]->prefers_own_pass()) {
      run_alone(*together[0], cost, on_error);
    } else if (!together.empty()) {
      run_parts(together, cost, cancel, on_error);
    }
    together.clear();
    n_rows = 0;
  };
  const bool on_device = runner_.model().device() != nullptr;
  for (Lane* const lane : lanes) {
    if (on_device || lane->needs_own_pass()) {
      run_alone(*lane, cost, on_error);
      continue;
    }
    if (n_rows + n_rows_of(*lane) > kMaxBatchRows) flush();
    together.push_back(lane);
    n_rows += n_rows_of(*lane);
  }
  flush();
}

void SharedPass::run_alone(Lane& lane, CostModel& cost, const OnError& on_error) {
  double ms = 0.0;
  try {
    const ScopedMs timer(ms);
    lane.run_alone();
  } catch (...) {
    on_error(lane, std::current_exception());
    return;
  }
  ++n_passes_;
  n_rows_ += n_rows_of(lane);
  pass_ms_ += ms;
  // It told its controller itself what the pass took.
  if (lane.controller() != nullptr) cost = lane.controller()->target_cost();
}

void SharedPass::run_parts(std::span<Lane* const> lanes, CostModel& cost,
                           const std::atomic<bool>& cancel, const OnError& on_error) {
  std::vector<Lane*> left(lanes.begin(), lanes.end());
  for (int n_failed = 1; !left.empty(); ++n_failed) {
    double ms = 0.0;
    const Failure failure = try_parts(left, ms, cost, cancel, on_error);
    if (failure.error == nullptr) return;
    // Nothing has changed.
    Lane* bad = left.size() == 1 ? left[0] : nullptr;
    if (failure.numerical) bad = lane_of(runner_.bad_row(), left);
    if (bad != nullptr && !(failure.numerical && bad->drop_draft(ms))) {
      on_error(*bad, failure.error);
      std::erase(left, bad);
    }
    // One after the other it shows whose rows they are, in a bounded number of passes.
    if (left.size() > 1 && (bad == nullptr || n_failed == kMostTogether)) {
      for (Lane* const lane : left) run_parts({&lane, 1}, cost, cancel, on_error);
      return;
    }
  }
}

SharedPass::Failure SharedPass::try_parts(std::vector<Lane*>& lanes, double& ms, CostModel& cost,
                                          const std::atomic<bool>& cancel,
                                          const OnError& on_error) {
  PartsBatch batch{.output = RowOutput::kArgmax};
  std::vector<BatchPart> parts;
  std::vector<Lane*> ready;
  int n_rows = 0;
  for (Lane* const lane : lanes) {
    try {
      parts.push_back(lane->part());
    } catch (...) {
      on_error(*lane, std::current_exception());
      continue;
    }
    ready.push_back(lane);
    n_rows += n_rows_of(*lane);
    if (!parts.back().silent) add_output(lane->rows().batch, batch);
    // Of one target those who want taps want the same ones.
    if (!lane->rows().batch.taps.empty()) batch.taps = lane->rows().batch.taps;
  }
  lanes = std::move(ready);
  if (lanes.empty()) return {};
  // Alone, whole rows are had with the best token at once.
  if (batch.keep_logits && batch.output == RowOutput::kArgmax) {
    batch.output = RowOutput::kLogits;
    batch.keep_logits = false;
  }
  batch.parts = parts;
  try {
    const ScopedMs timer(ms);
    runner_.forward_parts(batch, &cancel);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kCancelled) throw;
    return {std::current_exception(), error.code() == ErrorCode::kNumerical};
  }
  ++n_passes_;
  n_rows_ += n_rows;
  pass_ms_ += ms;
  take(lanes, ms, cost, on_error);
  if (n_rows <= CostModel::kMaxRows) cost.observe(n_rows, ms, runner_.results().reading());
  return {};
}

// A pass that also reads prompts costs those that generate what it would without.
void SharedPass::take(std::span<Lane* const> lanes, double ms, const CostModel& cost,
                      const OnError& on_error) {
  int n_rows = 0, n_generating = 0, n_others = -1;
  for (const Lane* lane : lanes) {
    n_rows += n_rows_of(*lane);
    if (lane->rows().reading) continue;
    n_generating += n_rows_of(*lane);
    ++n_others;
  }
  const double ratio =
      cost.known() && n_generating > 0 ? cost.ms(n_generating) / cost.ms(n_rows) : 1.0;
  const double ms_per_row = n_generating > 0 ? ms * std::min(ratio, 1.0) / n_generating : 0.0;
  int first_row = 0;
  for (Lane* const lane : lanes) {
    const int n = n_rows_of(*lane);
    try {
      if (Controller* const controller = lane->controller())
        controller->set_company({.n_others = std::max(n_others, 0),
                                 .n_rows = n_generating - n,
                                 .n_tokens = static_cast<double>(n_others),
                                 .n_reading = n_rows - n_generating});
      lane->take(RowsOfLane(runner_.results(), first_row, lane->rows().batch), ms_per_row * n);
    } catch (...) {
      on_error(*lane, std::current_exception());
    }
    first_row += n;
  }
}

}  // namespace specdec
