// Ctrl-C and SIGTERM: the first asks the running call to stop, the second ends the process. What
// ends because of one has the exit code 128 + its number.
#pragma once

#include <atomic>

namespace specdec::cli {

void install_interrupt_handler();
[[nodiscard]] bool interrupted() noexcept;
// By SIGTERM, which clear_interrupt() does not undo.
[[nodiscard]] bool terminated() noexcept;
// The token of calls that a signal is to end, within a forward pass too. Signals set it; so may the
// call.
[[nodiscard]] std::atomic<bool>& interrupt_flag() noexcept;
void clear_interrupt() noexcept;
// 128 + the signal that came; 130 when none did.
[[nodiscard]] int interrupt_exit_code() noexcept;

// While it lives there is nothing worth finishing: a signal ends the process at once, also one that
// came before.
class AbortOnInterrupt {
 public:
  AbortOnInterrupt() noexcept;
  ~AbortOnInterrupt();
  AbortOnInterrupt(const AbortOnInterrupt&) = delete;
  AbortOnInterrupt& operator=(const AbortOnInterrupt&) = delete;
};

}  // namespace specdec::cli
