#include "bindings/interrupts.h"

#include "bindings/native_call.h"

namespace specdec::bindings {

bool SignalPoll::interrupted() {
  if (interpreter_exits()) return true;
  if (!enabled_) return false;
  if (raised_) return true;
  const Clock::time_point now = Clock::now();
  if (now - last_ < kInterval) return false;
  last_ = now;
  py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) raised_.emplace();
  return raised_.has_value();
}

void SignalPoll::throw_if_interrupted() {
  if (interrupted()) throw Interrupted{};
}

void SignalPoll::rethrow() {
  if (!raised_) return;
  raised_->restore();
  raised_.reset();
  throw py::error_already_set();
}

void SignalPoll::raise() {
  rethrow();
  PyErr_SetString(PyExc_SystemExit, "the interpreter is exiting");  // a thread ends by it quietly
  throw py::error_already_set();
}

}  // namespace specdec::bindings
