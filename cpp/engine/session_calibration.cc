#include "engine/session_calibration.h"

#include "base/error.h"
#include "decode/drafter.h"
#include "decode/drafters/draft_head.h"
#include "decode/stats.h"

namespace specdec {

namespace {

bool runs_draft(std::string_view drafter) {
  return drafter == "model" || drafter == "eagle" || drafter == "mtp";
}

}  // namespace

void SessionCalibration::prepare(Controller& controller, const CalibratedPair& pair,
                                 bool with_credit, const std::function<void()>& poll) {
  if (known_ || pair.target_scorer.length() > 0) return;
  if (pair.draft_scorer != nullptr && pair.draft_scorer->length() > 0) return;
  if (pair.head_scorer != nullptr && pair.head_scorer->length() > 0) return;
  const Model& target = pair.target.model();
  controller.target_cost().set_mixture({.share = target.expert_share(),
                                        .n_experts = target.config().n_experts,
                                        .n_used = target.config().n_experts_used});
  try {
    measure(pair, controller.target_cost().mixture(), poll);
  } catch (...) {
    known_.reset();  // nothing half
    try {
      throw;
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kCancelled || is_survivable(error.code())) return;
      throw;
    }
  }
  controller.target_cost().calibrate(known_->target);
  for (int i = 0; i < controller.n_drafters(); ++i) {
    if (runs_draft(controller.traits(i).name)) controller.drafter_cost(i).calibrate(known_->draft);
    if (controller.traits(i).name == "layerskip")
      controller.drafter_cost(i).calibrate(known_->layers);
  }
  if (with_credit) controller.restore(known_->state);
}

// From the file, or else by passes of both models.
void SessionCalibration::measure(const CalibratedPair& pair, const Mixture& mixture,
                                 const std::function<void()>& poll) {
  known_.emplace();
  const CalibrationFile& file = file_.emplace(pair.target, pair.draft, pair.kv_type);
  const bool is_there =
      file.read(*known_) &&
      known_->draft.empty() == (pair.draft_scorer == nullptr && pair.head_scorer == nullptr);
  const int n_layers = pair.n_draft_layers;
  if (is_there && (n_layers == 0 || known_->n_draft_layers == n_layers)) return;
  // Of other layers than the last time, or without a drafter that failed then; what was earned and
  // lost before still counts.
  const ControllerState earned = known_->state;
  try {
    *known_ = calibrate(pair.target_scorer, pair.draft_scorer, n_layers, mixture, poll);
    if (pair.head_scorer != nullptr) {
      const ScopedMs timer(known_->measured_ms);
      DraftHead trimmed;
      trimmed.begin(pair.head_scorer->vocab_size(), pair.head_tokens);
      known_->draft = time_head(*pair.head_scorer, trimmed.blocks(), poll);
    }
  } catch (...) {
    pair.target_scorer.truncate(0);
    if (pair.draft_scorer != nullptr) pair.draft_scorer->truncate(0);
    if (pair.head_scorer != nullptr) pair.head_scorer->truncate(0);
    throw;
  }
  known_->state = earned;
  file.write(*known_);
}

void SessionCalibration::keep(Controller& controller) noexcept {
  if (!known_ || !file_) return;
  try {
    Calibration now = *known_;
    now.target = controller.target_cost().table();
    for (int i = 0; i < controller.n_drafters(); ++i) {
      if (runs_draft(controller.traits(i).name)) now.draft = controller.drafter_cost(i).table();
      if (controller.traits(i).name == "layerskip") now.layers = controller.drafter_cost(i).table();
    }
    now.state = controller.state();
    file_->write(now);
  } catch (...) {  // as in write()
  }
}

}  // namespace specdec
