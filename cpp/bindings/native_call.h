// Threads inside C++, and the end of the interpreter.
#pragma once

#include <optional>

#include "bindings/common.h"

namespace specdec::bindings {

// Lives in every function of C++ during which another thread may get the GIL. When the interpreter
// exits while other threads (daemon ones, say) are in such a function, they are asked to come back,
// and waited for: Python ends a thread that wants the GIL afterwards, and nothing in C++ survives
// that.
class Inside {
 public:
  Inside();
  ~Inside();
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
};

// Releases the GIL while it lives: for work that may take long.
class NativeCall {
 public:
  NativeCall();

 private:
  Inside inside_;
  std::optional<py::gil_scoped_release> release_;  // none once the interpreter exits
};

// Whether the interpreter exits: calls end as if they had been cancelled.
[[nodiscard]] bool interpreter_exits() noexcept;

// Registers with `atexit`.
void bind_native_call(py::module_& m);

}  // namespace specdec::bindings
