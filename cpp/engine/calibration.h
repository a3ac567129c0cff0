// What passes of a target and its draft model cost here, measured once and kept on disk.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "decode/control/controller.h"
#include "engine/head_scorer.h"
#include "engine/loaded_model.h"
#include "engine/model_scorer.h"

namespace specdec {

struct Calibration {
  // {rows, ms}, the first of one row.
  std::vector<std::pair<int, double>> target;
  std::vector<std::pair<int, double>> draft;  // empty without a draft model, or where it failed
  // Of the target's first n_draft_layers layers and its head; 0 and empty: not measured.
  int n_draft_layers = 0;
  std::vector<std::pair<int, double>> layers;
  ControllerState state;     // of earlier runs with this pair
  double measured_ms = 0.0;  // what measuring took; 0: read from disk
};

// One file per pair of models, part of the draft's output, machine, instruction set and number of
// threads, in $SPECDEC_CALIBRATION (a folder; "off": nothing is kept), or
// ~/.cache/specdec-native/calibration.
// Whatever goes wrong with it only means measuring again.
class CalibrationFile {
 public:
  // n_head_blocks: of the draft's output, as it is timed; 0: all.
  CalibrationFile(const LoadedModel& target, const LoadedModel* draft, KvType kv_type,
                  std::size_t n_head_blocks);

  // False when there is none, or it is not readable.
  [[nodiscard]] bool read(Calibration& out) const;
  void write(const Calibration& calibration) const noexcept;

 private:
  std::string folder_;  // empty: off
  std::string path_;
};

// Times passes of a head: {rows, ms}, with the fusing of taps where there are several rows; empty
// where it fails in a way that would end its drafts only.
// head_blocks: of the output, as in Batch.
[[nodiscard]] std::vector<std::pair<int, double>> time_head(
    HeadScorer& head, std::span<const std::int32_t> head_blocks, const std::function<void()>& poll);

// Times passes of both, of the draft with head_blocks of its output, and of the target's first
// n_draft_layers layers, if there are any, with layers_head_blocks of its output, in under half a
// second; what drafts may fail as in time_head(). Of a mixture the times that rows would take that
// choose experts independently. Scorers must be empty, and are so afterwards. `poll` is called
// between passes and may throw, and a pass may be cancelled: then scorers may hold something.
[[nodiscard]] Calibration calibrate(ModelScorer& target, ModelScorer* draft,
                                    std::span<const std::int32_t> head_blocks, int n_draft_layers,
                                    std::span<const std::int32_t> layers_head_blocks,
                                    const Mixture& mixture, const std::function<void()>& poll);

}  // namespace specdec
