// What a session's controller is told before its first request, and what it keeps of each.
#pragma once

#include <functional>
#include <optional>

#include "backend/kv_layout.h"
#include "decode/control/controller.h"
#include "engine/calibration.h"
#include "engine/head_scorer.h"
#include "engine/loaded_model.h"
#include "engine/model_scorer.h"

namespace specdec {

struct CalibratedPair {
  const LoadedModel& target;
  const LoadedModel* draft;  // null: none
  ModelScorer& target_scorer;
  ModelScorer* draft_scorer;
  HeadScorer* head_scorer;
  int n_draft_layers;  // of self-speculation; 0: none
  KvType kv_type;
  std::optional<int> head_tokens = 0;  // that the draft's output computes; 0: all
};

class SessionCalibration {
 public:
  // Once, before the first request: from the file, or measured where the caches, which that feeds,
  // hold nothing yet.
  // A request that is cancelled meanwhile, or whose target cannot be timed, goes on uncalibrated,
  // to its end; the next one measures again. with_credit: what was earned and lost before counts.
  void prepare(Controller& controller, const CalibratedPair& pair, bool with_credit,
               const std::function<void()>& poll);
  // What earlier runs learnt, lost and gained counts in later ones.
  void keep(Controller& controller) noexcept;
  [[nodiscard]] double measured_ms() const { return known_ ? known_->measured_ms : 0.0; }

 private:
  void find(const CalibratedPair& pair, const Mixture& mixture, const std::function<void()>& poll);

  std::optional<CalibrationFile> file_;
  std::optional<Calibration> known_;
};

}  // namespace specdec
