#include "bindings/native_call.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace specdec::bindings {
namespace {

// A callback that sleeps must not hold up the exit for ever.
constexpr std::chrono::seconds kPatience{10};

// No lock: a child made by fork() must not inherit one that is held.
std::atomic<int> n_inside{0};
std::atomic<bool> exits{false};

void at_exit() {
  exits.store(true);
  const py::gil_scoped_release release;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (n_inside.load() > 0 && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace

Inside::Inside() { n_inside.fetch_add(1); }

Inside::~Inside() { n_inside.fetch_sub(1); }

NativeCall::NativeCall() {
  if (!interpreter_exits()) release_.emplace();
}

bool interpreter_exits() noexcept { return exits.load(); }

void bind_native_call(py::module_&) {
  // The other threads are not in the child.
  ::pthread_atfork(nullptr, nullptr, [] { n_inside.store(0); });
  py::module_::import("atexit").attr("register")(py::cpp_function(&at_exit));
}

}  // namespace specdec::bindings
