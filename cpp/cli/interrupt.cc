#include "cli/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "engine/session.h"

namespace specdec::cli {
namespace {

std::atomic<bool> flag{false};
std::atomic<bool> abort_at_once{false};
std::atomic<Session*> target{nullptr};
static_assert(std::atomic<Session*>::is_always_lock_free);

extern "C" void on_interrupt(int) {
  if (abort_at_once.load()) {
    constexpr char kMessage[] = "\nspecdec: interrupted\n";
    // Only what a signal handler may call; whether it can be printed does not matter.
    [[maybe_unused]] const auto n = ::write(STDERR_FILENO, kMessage, sizeof kMessage - 1);
    ::_exit(130);
  }
  if (flag.exchange(true)) ::_exit(130);
  // cancel() only stores to a lock-free atomic.
  if (Session* session = target.load()) session->cancel();
}

}  // namespace

void install_interrupt_handler() {
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  // No SA_RESTART: a read from the terminal returns, so that `chat` can react.
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() noexcept { return flag.load(); }

const std::atomic<bool>& interrupt_flag() noexcept { return flag; }

void clear_interrupt() noexcept { flag.store(false); }

AbortOnInterrupt::AbortOnInterrupt() noexcept { abort_at_once.store(true); }

AbortOnInterrupt::~AbortOnInterrupt() { abort_at_once.store(false); }

InterruptTarget::InterruptTarget(Session& session) noexcept { target.store(&session); }

InterruptTarget::~InterruptTarget() { target.store(nullptr); }

}  // namespace specdec::cli
