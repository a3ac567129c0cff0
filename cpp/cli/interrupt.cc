#include "cli/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "engine/session.h"

namespace specdec::cli {
namespace {

std::atomic<int> interrupt_count{0};
std::atomic<Session*> target{nullptr};
static_assert(std::atomic<Session*>::is_always_lock_free);

extern "C" void on_interrupt(int) {
  if (interrupt_count.fetch_add(1) > 0) ::_exit(130);
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

bool interrupted() noexcept { return interrupt_count.load() > 0; }

void clear_interrupt() noexcept { interrupt_count.store(0); }

InterruptTarget::InterruptTarget(Session& session) noexcept { target.store(&session); }

InterruptTarget::~InterruptTarget() { target.store(nullptr); }

}  // namespace specdec::cli
