// Ctrl-C: the first one asks the running call to stop, the second one ends the process.
#pragma once

#include <atomic>

namespace specdec {
class Session;
}

namespace specdec::cli {

void install_interrupt_handler();
[[nodiscard]] bool interrupted() noexcept;
[[nodiscard]] const std::atomic<bool>& interrupt_flag() noexcept;
void clear_interrupt() noexcept;

// While it lives there is nothing worth finishing: Ctrl-C ends the process at once with exit code
// 130.
class AbortOnInterrupt {
 public:
  AbortOnInterrupt() noexcept;
  ~AbortOnInterrupt();
  AbortOnInterrupt(const AbortOnInterrupt&) = delete;
  AbortOnInterrupt& operator=(const AbortOnInterrupt&) = delete;
};

// While it lives, Ctrl-C also cancels this session, within a forward pass too.
class InterruptTarget {
 public:
  explicit InterruptTarget(Session& session) noexcept;
  ~InterruptTarget();
  InterruptTarget(const InterruptTarget&) = delete;
  InterruptTarget& operator=(const InterruptTarget&) = delete;
};

}  // namespace specdec::cli
