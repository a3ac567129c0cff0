// Loaded with LD_PRELOAD: from the n-th allocation on (SPECDEC_FAIL_AT), every one fails. When the
// process ends normally, the number of allocations goes to the file SPECDEC_COUNT_TO. A process
// can also ask for failures itself, with the functions at the end.
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdio>
#include <cstdlib>

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace {

std::atomic<long> g_count{0};
std::atomic<long> g_fail_at{0};  // 0: never
std::atomic<long> g_fail_end{LONG_MAX};
thread_local bool t_spared = false;

bool refused() {
  if (t_spared) return false;
  const long n = g_count.fetch_add(1) + 1;
  if (g_fail_at == 0 || n < g_fail_at || n >= g_fail_end) return false;
  errno = ENOMEM;
  return true;
}

struct Settings {
  Settings() {
    const char* text = std::getenv("SPECDEC_FAIL_AT");
    g_count.store(0);  // main() is not reached yet: what came before does not count
    if (text != nullptr) g_fail_at = std::atol(text);
  }
  ~Settings() {
    g_fail_at = 0;
    const char* path = std::getenv("SPECDEC_COUNT_TO");
    if (path == nullptr) return;
    const int fd = ::open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    char text[32];
    const int n = std::snprintf(text, sizeof text, "%ld", g_count.load());
    if (fd >= 0 && ::write(fd, text, static_cast<std::size_t>(n)) > 0) ::close(fd);
  }
};

}  // namespace

extern "C" {

void* malloc(std::size_t n) { return refused() ? nullptr : __libc_malloc(n); }
void* calloc(std::size_t n, std::size_t size) {
  return refused() ? nullptr : __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t n) { return refused() ? nullptr : __libc_realloc(p, n); }
void* memalign(std::size_t a, std::size_t n) { return refused() ? nullptr : __libc_memalign(a, n); }
void* aligned_alloc(std::size_t a, std::size_t n) { return memalign(a, n); }
int posix_memalign(void** out, std::size_t a, std::size_t n) {
  void* p = memalign(a, n);
  if (p == nullptr) return ENOMEM;
  *out = p;
  return 0;
}

// Of a thread_local variable with a destructor. glibc ends the process where it has no memory for
// that, and nobody can do anything about it.
int __cxa_thread_atexit_impl(void (*destroy)(void*), void* object, void* library) {
  using Register = int (*)(void (*)(void*), void*, void*);
  static const auto registered =
      reinterpret_cast<Register>(::dlsym(RTLD_NEXT, "__cxa_thread_atexit_impl"));
  const bool before = t_spared;
  t_spared = true;
  const int result = registered(destroy, object, library);
  t_spared = before;
  return result;
}

// From now on the n-th allocation fails, and so many behind it; n = 0: none does.
void specdec_fail(long n, long how_many) {
  g_fail_at.store(0);
  g_count.store(0);
  g_fail_end.store(how_many > LONG_MAX - n ? LONG_MAX : n + how_many);
  g_fail_at.store(n);
}
long specdec_allocations() { return g_count.load(); }
// Allocations of this thread neither count nor fail.
void specdec_spare(bool spared) { t_spared = spared; }

}  // extern "C"

// Last, so that everything above is ready.
static const Settings g_settings;
