#include "engine/session_calibration.h"

#include <algorithm>

#include "base/error.h"
#include "base/thread_pool.h"
#include "decode/drafter.h"
#include "decode/drafters/draft_head.h"
#include "decode/stats.h"

namespace specdec {

namespace {

bool runs_draft(std::string_view drafter) {
  return drafter == "model" || drafter == "eagle" || drafter == "mtp";
}

bool holds_text(const CalibratedPair& pair) {
  return pair.target_scorer.length() > 0 ||
         (pair.draft_scorer != nullptr && pair.draft_scorer->length() > 0) ||
         (pair.head_scorer != nullptr && pair.head_scorer->length() > 0);
}

}  // namespace

void SessionCalibration::prepare(Controller& controller, const CalibratedPair& pair,
                                 bool with_credit, const std::function<void()>& poll) {
  if (known_) return;
  const Model& target = pair.target.model();
  controller.target_cost().set_mixture({.share = target.expert_share(),
                                        .n_experts = target.config().n_experts,
                                        .n_used = target.config().n_experts_used});
  try {
    find(pair, controller.target_cost().mixture(), poll);
  } catch (...) {
    known_.reset();  // nothing half
    try {
      throw;
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kCancelled || is_survivable(error.code())) return;
      throw;
    }
  }
  if (!known_) return;
  controller.target_cost().calibrate(known_->target);
  for (int i = 0; i < controller.n_drafters(); ++i) {
    if (runs_draft(controller.traits(i).name)) controller.drafter_cost(i).calibrate(known_->draft);
    if (controller.traits(i).name == "layerskip")
      controller.drafter_cost(i).calibrate(known_->layers);
  }
  if (with_credit) controller.restore(known_->state);
}

// From the file, or else by passes of both models, which must hold nothing for that.
void SessionCalibration::find(const CalibratedPair& pair, const Mixture& mixture,
                              const std::function<void()>& poll) {
  known_.emplace();
  // As they draft, but for the tokens that texts add.
  DraftHead trimmed, of_layers;
  of_layers.begin(pair.target_scorer.vocab_size(), std::nullopt);
  if (pair.draft_scorer != nullptr) {
    trimmed.begin(std::min(pair.draft_scorer->vocab_size(), pair.target_scorer.vocab_size()),
                  pair.head_tokens);
  } else if (pair.head_scorer != nullptr) {
    trimmed.begin(pair.head_scorer->vocab_size(), pair.head_tokens);
  }
  const CalibrationFile& file =
      file_.emplace(pair.target, pair.draft, pair.kv_type, trimmed.blocks().size());
  const bool is_there =
      file.read(*known_) &&
      known_->draft.empty() == (pair.draft_scorer == nullptr && pair.head_scorer == nullptr);
  const int n_layers = pair.n_draft_layers;
  if (is_there && (n_layers == 0 || known_->n_draft_layers == n_layers)) return;
  if (holds_text(pair)) {
    known_.reset();
    return;
  }
  // Of other layers than the last time, or without a drafter that failed then; what was earned and
  // lost before still counts.
  const ControllerState earned = known_->state;
  const AllThreads all;
  try {
    *known_ = calibrate(pair.target_scorer, pair.draft_scorer, trimmed.blocks(), n_layers,
                        of_layers.blocks(), mixture, poll);
    if (pair.head_scorer != nullptr) {
      const ScopedMs timer(known_->measured_ms);
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
