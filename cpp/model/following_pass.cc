// A pass in two phases, behind steps of a draft model: both are put on the device's stream, and the
// host waits once.
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "model/pass.h"
#include "model/runner.h"

namespace specdec {

struct Runner::Issued {
  Issued(Runner& draft_runner, KvCache& draft_kv, Steps& draft_steps, const Batch& rows,
         KvCache& kv)
      : draft(draft_runner),
        draft_part{whole(draft_kv, draft_steps.batch)},
        steps(draft_steps),
        batch(rows),
        part{whole(kv, rows)},
        device(*draft_runner.model_.device()) {}
  ~Issued() {
    if (running) device.abort_pass();
  }
  Issued(const Issued&) = delete;
  Issued& operator=(const Issued&) = delete;

  Runner& draft;
  PassPart draft_part[1];
  Steps& steps;
  Batch batch;
  PassPart part[1];
  DeviceBackend& device;
  std::optional<Pass> leading, pass;
  bool running = false;  // the device's stream is ours
};

Runner::Runner(const Model& model, const Model* lender)
    : model_(model),
      lender_(lender),
      lent_(lender != nullptr ? &lender->lend(!model.config().draft_head.own_output) : nullptr) {}
Runner::~Runner() = default;

void Runner::check_following(const Runner& draft, const Batch& batch,
                             std::span<const std::int32_t> picks, const KvCache& cache) const {
  if (!can_follow(model_, draft.model_)) {
    throw Error(
        ErrorCode::kUnsupported,
        model_.file()->path() + ": a pass follows steps when all of both models is on one device");
  }
  check_batch(batch, model_.config(), cache);
  const auto n_rows = static_cast<int>(batch.tokens.size());
  const bool has_head = batch.output != RowOutput::kNone && batch.output != RowOutput::kHidden;
  if (n_rows > kMaxFollowingRows || picks.size() != batch.tokens.size() || !has_head ||
      batch.first_output_row >= n_rows || batch.keep_hidden || !batch.hidden.empty() ||
      !batch.taps.empty()) {
    throw_invalid("a pass that follows steps has at most " + std::to_string(kMaxFollowingRows) +
                  " rows with a pick each, and tokens as its output");
  }
}

void Runner::issue(Runner& draft, KvCache& draft_cache, Steps& steps, const Batch& batch,
                   std::span<const std::int32_t> picks, KvCache& cache,
                   const std::atomic<bool>* cancel) try {
  issued_.reset();
  check_following(draft, batch, picks, cache);
  check_cancel(cancel);
  steps.n_done = 0;
  auto issued = std::make_unique<Issued>(draft, draft_cache, steps, batch, cache);
  try {
    draft.check_steps(steps.batch, steps.n_steps, draft_cache);
    issued->leading = draft.begin(steps.batch, steps.n_steps, issued->draft_part, cancel);
    issued->leading->leads = true;
    draft.prepare_head(steps.batch, *issued->leading);
  } catch (const Error&) {
    steps.error = std::current_exception();
    return;
  }
  for (const std::int32_t pick : picks) {
    if (pick >= steps.n_steps * draft.results_.top_k_)
      throw_invalid("pick " + std::to_string(pick) + " is not a result of the steps");
  }
  issued->pass = begin(batch, 1, issued->part, cancel);
  issued->pass->picks = picks.data();
  prepare_head(batch, *issued->pass);

  bool on_steps = true;
  try {
    const bool issue_steps =
        issued->device.begin_pass(draft.device_pass(steps.batch, *issued->leading));
    issued->running = true;
    if (issue_steps) draft.issue_on_device(steps.batch, *issued->leading);
    on_steps = false;
    if (issued->device.follow_pass(device_pass(batch, *issued->pass)))
      issue_on_device(batch, *issued->pass);
  } catch (const Error&) {
    if (!on_steps) throw;
    steps.error = std::current_exception();
    return;
  }
  issued_ = std::move(issued);
} catch (const std::bad_alloc&) {
  throw Error(ErrorCode::kResource, "not enough memory for a pass that follows steps");
}

bool Runner::finish() {
  if (issued_ == nullptr) return false;
  Issued& issued = *issued_;
  try {
    issued.steps.share = issued.device.finish_pass();
    issued.running = false;
  } catch (...) {
    issued_.reset();
    throw;
  }
  try {
    issued.steps.n_done = issued.draft.end(issued.steps.batch, *issued.leading);
    issued.draft_part[0].cache->advance(issued.leading->n_rows + issued.steps.n_done - 1);
  } catch (const Error&) {  // its first logits are not finite
    issued.steps.error = std::current_exception();
  }
  return true;
}

// Rows that nobody uses are as if they had never been fed.
void Runner::keep(int n_rows) {
  SPECDEC_CHECK(issued_ != nullptr && !issued_->running);
  const std::unique_ptr<Issued> issued = std::move(issued_);
  Pass& pass = *issued->pass;
  SPECDEC_CHECK(n_rows > issued->batch.first_output_row && n_rows <= pass.n_rows);
  pass.n_rows = n_rows;
  (void)end(issued->batch, pass);
  issued->part[0].cache->advance(n_rows);
}

}  // namespace specdec
