// Ctrl-C while C++ runs without the GIL.
#pragma once

#include <chrono>
#include <optional>

#include "bindings/common.h"

namespace specdec::bindings {

// Lets Python's signal handlers run every 20 ms; the exception one raises (KeyboardInterrupt) waits
// until the work has ended in order. Call both from the thread that holds or released the GIL.
class SignalPoll {
 public:
  // `enabled` only on Python's main thread: signal handlers run nowhere else.
  explicit SignalPoll(bool enabled) : enabled_(enabled) {}

  // True once a handler raised, and while the interpreter exits. Without the GIL.
  bool interrupted();
  // Throws Interrupted then: for work that can only be ended by an exception.
  struct Interrupted {};
  void throw_if_interrupted();
  // Raises what the handler raised, if anything. With the GIL.
  void rethrow();
  // The same for the catcher of an Interrupted: always raises.
  [[noreturn]] void raise();

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kInterval{20};

  bool enabled_;
  Clock::time_point last_ = Clock::now();
  std::optional<py::error_already_set> raised_;
};

}  // namespace specdec::bindings
