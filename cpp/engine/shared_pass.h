// One pass of the target over the rows of several lanes.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <span>
#include <vector>

#include "decode/control/cost_model.h"
#include "engine/lane.h"
#include "model/runner.h"

namespace specdec {

class SharedPass {
 public:
  explicit SharedPass(const Model& model) : runner_(model) {}

  // The lanes have laid their rows out; those that read come first. Where one of them is to blame
  // for an error, the others go on: on_error(lane, error) is called for it. `cancel` ends the whole
  // with Error(kCancelled). Learns what passes cost.
  using OnError = std::function<void(Lane&, const std::exception_ptr&)>;
  void run(std::span<Lane* const> lanes, CostModel& cost, const std::atomic<bool>& cancel,
           const OnError& on_error);

  [[nodiscard]] std::int64_t n_passes() const { return n_passes_; }
  [[nodiscard]] std::int64_t n_rows() const { return n_rows_; }
  [[nodiscard]] double pass_ms() const { return pass_ms_; }
  [[nodiscard]] std::size_t n_bytes() const { return runner_.n_bytes(); }

 private:
  void run_alone(Lane& lane, CostModel& cost, const OnError& on_error);
  void run_parts(std::span<Lane* const> lanes, CostModel& cost, const std::atomic<bool>& cancel,
                 const OnError& on_error);
  struct Failure {
    std::exception_ptr error;
    bool numerical = false;
  };
  // One pass, which took ms; why nothing came of it, if so. Takes those away from the lanes that
  // cannot tell their rows.
  [[nodiscard]] Failure try_parts(std::vector<Lane*>& lanes, double& ms, CostModel& cost,
                                  const std::atomic<bool>& cancel, const OnError& on_error);
  void take(std::span<Lane* const> lanes, double ms, const CostModel& cost,
            const OnError& on_error);

  Runner runner_;
  std::int64_t n_passes_ = 0, n_rows_ = 0;
  double pass_ms_ = 0.0;
};

}  // namespace specdec
