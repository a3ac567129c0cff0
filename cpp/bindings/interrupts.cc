#include "bindings/interrupts.h"

namespace specdec::bindings {

bool SignalPoll::interrupted() {
  if (!enabled_) return false;
  if (raised_) return true;
  const Clock::time_point now = Clock::now();
  if (now - last_ < kInterval) return false;
  last_ = now;
  py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) raised_.emplace();
  return raised_.has_value();
}

void SignalPoll::rethrow() {
  if (!raised_) return;
  raised_->restore();
  raised_.reset();
  throw py::error_already_set();
}

}  // namespace specdec::bindings
