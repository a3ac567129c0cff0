#include "base/forked.h"

#include <pthread.h>
#include <unistd.h>

namespace specdec {
namespace {

bool forked = false;

}  // namespace

// Of those that run handlers of fork(), which Python's do: asking the system each time who one is
// takes a third of a small task.
bool in_forked_child() noexcept {
  static const int refused = ::pthread_atfork(nullptr, nullptr, [] { forked = true; });
  static const pid_t owner = ::getpid();
  return refused == 0 ? forked : ::getpid() != owner;
}

}  // namespace specdec
