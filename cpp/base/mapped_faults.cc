#include "base/mapped_faults.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <new>

#include "base/system.h"

namespace specdec {
namespace {

// Nodes are used again but never freed: a handler may be looking at any of them.
std::atomic<WatchedMapping*> g_mappings{nullptr};
std::mutex g_install_mutex;
// What was there before us. Written with the mutex held; two slots, so that the one that handlers
// may be reading is not written.
struct sigaction g_previous[2];
std::atomic<int> g_current_previous{0};
std::atomic<long> g_page_bytes{4096};
// What the previous handler was last called for, by which thread and how often in a row. One that
// gives up restores what it found, which may be this handler, and raises the signal again.
std::atomic<long> g_chained_thread{0};
std::atomic<std::uintptr_t> g_chained_address{0};
std::atomic<int> g_n_chained{0};
constexpr int kMaxChained = 100;

void end_process(int signal_number) noexcept {
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  ::sigaction(signal_number, &action, nullptr);
  // Pending until the handler returns; a fault happens again all the same.
  ::raise(signal_number);
}

bool previous_gave_up(const siginfo_t* info, long self) noexcept {
  if (g_chained_thread.load() != self) return false;
  if (info->si_code <= 0) return info->si_pid == ::getpid();
  return g_n_chained.load() >= kMaxChained &&
         g_chained_address.load() == reinterpret_cast<std::uintptr_t>(info->si_addr);
}

void pass_on(int signal_number, siginfo_t* info, void* context) noexcept {
  const struct sigaction& previous = g_previous[g_current_previous.load(std::memory_order_acquire)];
  const bool has_info = (previous.sa_flags & SA_SIGINFO) != 0;
  const bool is_plain =
      !has_info && previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN;
  const long self = current_thread_id();
  if (previous_gave_up(info, self) || (!has_info && !is_plain)) {
    const bool ignored = !has_info && previous.sa_handler == SIG_IGN;
    if (ignored && info->si_code <= 0) return;  // sent by a process
    end_process(signal_number);
    return;
  }
  if (info->si_code > 0) {
    const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
    const bool again = g_chained_address.exchange(address) == address;
    g_n_chained.store(again ? g_n_chained.load() + 1 : 1);
    g_chained_thread.store(self);
  }
  if (has_info) {
    previous.sa_sigaction(signal_number, info, context);
  } else {
    previous.sa_handler(signal_number);
  }
}

// Only what is async-signal-safe, and mmap, which is a plain system call.
void on_bus_error(int signal_number, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  if (info->si_code > 0) {  // from the kernel: si_addr is where
    const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
    for (WatchedMapping* m = g_mappings.load(std::memory_order_acquire); m != nullptr;
         m = m->next) {
      const std::uintptr_t begin = m->begin.load(std::memory_order_acquire);
      const std::uintptr_t end = m->end.load(std::memory_order_acquire);
      if (begin == 0 || address < begin || address >= end) continue;
      const auto page = static_cast<std::uintptr_t>(g_page_bytes.load());
      const std::uintptr_t first = address / page * page;
      // Up to the end at once: what follows is missing too, and mappings are a limited resource.
      void* zeros = ::mmap(reinterpret_cast<void*>(first), end - first, PROT_READ,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
      if (zeros == MAP_FAILED) break;
      m->faulted.store(true, std::memory_order_release);
      errno = saved_errno;
      return;
    }
  }
  pass_on(signal_number, info, context);
  errno = saved_errno;
}

}  // namespace

void watch_faults() noexcept {
  struct sigaction current = {};
  if (::sigaction(SIGBUS, nullptr, &current) != 0) return;
  const auto is_ours = [](const struct sigaction& action) {
    return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == &on_bus_error;
  };
  if (is_ours(current)) return;
  const std::lock_guard lock(g_install_mutex);
  if (::sigaction(SIGBUS, nullptr, &current) != 0 || is_ours(current)) return;
  const long page = ::sysconf(_SC_PAGESIZE);
  if (page > 0) g_page_bytes.store(page);
  const int slot = 1 - g_current_previous.load();
  g_previous[slot] = current;
  g_current_previous.store(slot, std::memory_order_release);
  struct sigaction ours = {};
  ours.sa_sigaction = &on_bus_error;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&ours.sa_mask);
  ::sigaction(SIGBUS, &ours, nullptr);
}

WatchedMapping* watch_mapping(const void* data, std::size_t n_bytes) noexcept {
  watch_faults();
  WatchedMapping* mapping = nullptr;
  for (mapping = g_mappings.load(std::memory_order_acquire); mapping != nullptr;
       mapping = mapping->next) {
    bool free = false;
    if (mapping->in_use.compare_exchange_strong(free, true)) break;
  }
  if (mapping == nullptr) {
    mapping = new (std::nothrow) WatchedMapping;
    if (mapping == nullptr) return nullptr;
    mapping->in_use.store(true);
    mapping->next = g_mappings.load();
    while (!g_mappings.compare_exchange_weak(mapping->next, mapping)) {
    }
  }
  const long page = g_page_bytes.load();
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t size = (n_bytes + static_cast<std::size_t>(page) - 1) /
                              static_cast<std::size_t>(page) * static_cast<std::size_t>(page);
  mapping->faulted.store(false);
  mapping->end.store(begin + size, std::memory_order_release);
  mapping->begin.store(begin, std::memory_order_release);
  return mapping;
}

void unwatch_mapping(WatchedMapping* mapping) noexcept {
  if (mapping == nullptr) return;
  mapping->begin.store(0, std::memory_order_release);
  mapping->end.store(0, std::memory_order_release);
  mapping->in_use.store(false, std::memory_order_release);
}

}  // namespace specdec
