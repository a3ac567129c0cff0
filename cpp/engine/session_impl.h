// What a session consists of; only its own sources include this.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "decode/control/controller.h"
#include "decode/decoder.h"
#include "decode/reread_scorer.h"
#include "decode/round_trace.h"
#include "engine/drafter_set.h"
#include "engine/head_scorer.h"
#include "engine/model_scorer.h"
#include "engine/session.h"
#include "engine/session_calibration.h"
#include "kv/kv_arena.h"

namespace specdec {

// Clears the flag on every way out.
class BusyGuard {
 public:
  BusyGuard(std::atomic<bool>& busy, const char* what) : busy_(busy) {
    if (busy_.exchange(true)) {
      throw Error(ErrorCode::kBusy, std::string("the session is already generating: ") + what +
                                        " must wait; use one session per thread");
    }
  }
  ~BusyGuard() { busy_.store(false); }
  BusyGuard(const BusyGuard&) = delete;
  BusyGuard& operator=(const BusyGuard&) = delete;

 private:
  std::atomic<bool>& busy_;
};

struct Session::Impl {
  std::shared_ptr<const LoadedModel> target;
  SessionOptions options;
  std::shared_ptr<KvArena> arena;
  // Declared in the order of dependence: destroyed in reverse.
  std::atomic<bool> busy{false};
  std::unique_ptr<ModelScorer> scorer, draft_scorer;
  std::unique_ptr<HeadScorer> head_scorer;  // in place of draft_scorer, where the draft is a head
  std::vector<std::unique_ptr<RereadScorer>> rereaders;  // without a cache; the target's first
  std::optional<DrafterSet> drafters;
  std::optional<Controller> controller;  // of adaptive drafting
  SessionCalibration calibration;
  std::optional<RoundTrace> trace;  // $SPECDEC_ROUND_TRACE
  std::unique_ptr<Decoder> decoder;

  void make_decoder(const Impl* origin = nullptr);
  [[nodiscard]] TokenScorer* seen(TokenScorer& with_cache);
  void count_rereads(DecodeStats& stats) const;
  // Once, so far as it is possible and anything adapts.
  void calibrate(const std::function<void()>& poll) {
    if (controller) calibration.prepare(*controller, calibrated_pair(), options.use_cache, poll);
  }
  [[nodiscard]] CalibratedPair calibrated_pair() {
    return {.target = *target,
            .draft = options.draft.get(),
            .target_scorer = *scorer,
            .draft_scorer = draft_scorer.get(),
            .head_scorer = head_scorer.get(),
            .n_draft_layers = drafters->n_draft_layers(),
            .kv_type = parse_kv_type(options.kv_type),
            .head_tokens = draft_head_tokens(options)};
  }
};

}  // namespace specdec
