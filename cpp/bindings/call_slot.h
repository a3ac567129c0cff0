// Which call a decoder runs, and how it is cancelled.
#pragma once

#include <atomic>
#include <memory>

#include "bindings/common.h"

namespace specdec::bindings {

// The token of one call: set from any thread, also before the work has begun, and never cleared.
struct CancelFlag {
  std::atomic<bool> set{false};
};

// A context manager that one call at a time is in. Its token exists before anybody can see that the
// call runs, so no cancel() or close() between the first line of a call and its end is lost.
// In C++ because Python may raise KeyboardInterrupt between any two lines of its own: nothing comes
// between a native __enter__ and the `with` block. Guarded by the GIL.
class CallSlot {
 public:
  // Raises ForkError in a forked child, ClosedError, SessionBusyError.
  std::shared_ptr<CancelFlag> enter();
  void leave() { current_.reset(); }
  // Ends the call that runs, if any.
  void cancel() {
    if (current_) current_->set = true;
  }
  // The same; and there will be no other.
  void close() {
    closed_ = true;
    cancel();
  }
  [[nodiscard]] bool busy() const { return current_ != nullptr; }
  [[nodiscard]] bool closed() const { return closed_; }

 private:
  std::shared_ptr<CancelFlag> current_;
  bool closed_ = false;
};

// CallSlot and StreamBase.
void bind_call_slot(py::module_& m);

}  // namespace specdec::bindings
