// Threads inside C++, and the end of the interpreter.
#pragma once

#include <optional>

#include "bindings/common.h"

namespace specdec::bindings {

// Releases the GIL while it lives. Every call that may take long has one. When the interpreter
// exits while other threads (daemon ones, say) are inside, they are asked to come back, and waited
// for: Python ends a thread that wants the GIL afterwards, and nothing in C++ survives that.
class NativeCall {
 public:
  NativeCall();
  ~NativeCall();
  NativeCall(const NativeCall&) = delete;
  NativeCall& operator=(const NativeCall&) = delete;

 private:
  std::optional<py::gil_scoped_release> release_;  // none once the interpreter exits
};

// Whether the interpreter exits: calls end as if they had been cancelled.
[[nodiscard]] bool interpreter_exits() noexcept;

// Registers with `atexit`.
void bind_native_call(py::module_& m);

}  // namespace specdec::bindings
