#include "cli/interrupt.h"

#include <signal.h>
#include <unistd.h>

namespace specdec::cli {
namespace {

// Whatever waits where no flag is looked at: a supervisor's SIGTERM is obeyed all the same.
constexpr unsigned kPatienceSeconds = 5;

std::atomic<bool> flag{false};
std::atomic<bool> term{false};
std::atomic<int> last_signal{SIGINT};
std::atomic<int> n_abort_at_once{0};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

// Only what a signal handler may call.
[[noreturn]] void abort_now() {
  constexpr char kMessage[] = "\nspecdec: interrupted\n";
  // Whether it can be printed does not matter.
  [[maybe_unused]] const auto n = ::write(STDERR_FILENO, kMessage, sizeof kMessage - 1);
  ::_exit(128 + last_signal.load());
}

extern "C" void on_alarm(int) { ::_exit(128 + SIGTERM); }

extern "C" void on_interrupt(int number) {
  last_signal.store(number);
  if (n_abort_at_once.load() > 0) abort_now();
  if (number == SIGTERM) {
    term.store(true);
    ::alarm(kPatienceSeconds);
  }
  if (flag.exchange(true)) ::_exit(128 + number);
}

void handle(int number, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  // No SA_RESTART: a read from the terminal returns, so that `chat` can react.
  ::sigaction(number, &action, nullptr);
}

}  // namespace

void install_interrupt_handler() {
  handle(SIGINT, on_interrupt);
  handle(SIGTERM, on_interrupt);
  handle(SIGALRM, on_alarm);
}

bool interrupted() noexcept { return flag.load(); }

bool terminated() noexcept { return term.load(); }

std::atomic<bool>& interrupt_flag() noexcept { return flag; }

void clear_interrupt() noexcept { flag.store(terminated()); }

int interrupt_exit_code() noexcept { return 128 + last_signal.load(); }

AbortOnInterrupt::AbortOnInterrupt() noexcept {
  n_abort_at_once.fetch_add(1);
  if (flag.load()) abort_now();
}

AbortOnInterrupt::~AbortOnInterrupt() { n_abort_at_once.fetch_sub(1); }

}  // namespace specdec::cli
