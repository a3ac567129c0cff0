// Loaded with LD_PRELOAD: calls of the system that fail. SPECDEC_FAIL_CALL names one of those at
// the end, SPECDEC_FAIL_AT the first that fails, counted from 1, SPECDEC_FAIL_FOR how many do, and
// SPECDEC_FAIL_HOW how: "error" (of that call's own kind), "again" (a signal interrupts it) or
// "short" (one byte is read or written). When the process ends, the counts of all go to the file
// SPECDEC_COUNT_TO.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

struct Call {
  const char* name;
  int error;
  std::atomic<long> count{0};
};

Call g_calls[] = {{"open", EMFILE},
                  {"read", EIO},
                  {"pread", EIO},
                  {"write", ENOSPC},
                  {"mmap", ENOMEM},
                  {"fsync", EIO},
                  {"rename", EACCES},
                  {"linkat", EPERM},
                  {"fstat", EIO},
                  {"stat", EACCES},
                  {"pthread_create", EAGAIN}};
enum { kOpen, kRead, kPread, kWrite, kMmap, kFsync, kRename, kLinkat, kFstat, kStat, kThread };

const Call* g_failing = nullptr;
long g_first = 0;
long g_how_many = 1;
char g_how = 'e';
bool g_ready = false;

const char* setting(const char* name, const char* otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? text : otherwise;
}

// Whether this call is one of those that fail.
bool fails(int which) {
  if (!g_ready) return false;
  Call& call = g_calls[which];
  const long n = call.count.fetch_add(1) + 1;
  return &call == g_failing && n >= g_first && n - g_first < g_how_many;
}

int refuse(int which) {
  errno = g_how == 'a' ? EINTR : g_calls[which].error;
  return -1;
}

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

struct Settings {
  Settings() {
    const char* name = setting("SPECDEC_FAIL_CALL", "");
    for (Call& call : g_calls) {
      if (std::strcmp(call.name, name) == 0) g_failing = &call;
    }
    g_first = std::atol(setting("SPECDEC_FAIL_AT", "0"));
    g_how_many = std::atol(setting("SPECDEC_FAIL_FOR", "1"));
    g_how = setting("SPECDEC_FAIL_HOW", "error")[0];
    g_ready = true;
  }
  ~Settings() {
    g_ready = false;
    const char* path = std::getenv("SPECDEC_COUNT_TO");
    if (path == nullptr) return;
    const int fd = next<int (*)(const char*, int, ...)>("open")(path, O_WRONLY | O_CREAT, 0644);
    char text[64];
    for (const Call& call : g_calls) {
      const int n = std::snprintf(text, sizeof text, "%s %ld\n", call.name, call.count.load());
      if (::dprintf(fd, "%.*s", n, text) < 0) break;
    }
    ::close(fd);
  }
};

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  std::va_list rest;
  va_start(rest, flags);
  const mode_t mode = va_arg(rest, mode_t);
  va_end(rest);
  static const auto real = next<int (*)(const char*, int, ...)>("open");
  return fails(kOpen) ? refuse(kOpen) : real(path, flags, mode);
}
ssize_t read(int fd, void* to, std::size_t n) {
  static const auto real = next<ssize_t (*)(int, void*, std::size_t)>("read");
  if (!fails(kRead)) return real(fd, to, n);
  return g_how == 's' ? real(fd, to, n > 0 ? 1 : 0) : refuse(kRead);
}
ssize_t pread(int fd, void* to, std::size_t n, off_t at) {
  static const auto real = next<ssize_t (*)(int, void*, std::size_t, off_t)>("pread");
  if (!fails(kPread)) return real(fd, to, n, at);
  return g_how == 's' ? real(fd, to, n > 0 ? 1 : 0, at) : refuse(kPread);
}
ssize_t write(int fd, const void* from, std::size_t n) {
  static const auto real = next<ssize_t (*)(int, const void*, std::size_t)>("write");
  if (!fails(kWrite)) return real(fd, from, n);
  return g_how == 's' ? real(fd, from, n > 0 ? 1 : 0) : refuse(kWrite);
}
void* mmap(void* at, std::size_t n, int protection, int flags, int fd, off_t offset) {
  static const auto real = next<void* (*)(void*, std::size_t, int, int, int, off_t)>("mmap");
  if (!fails(kMmap)) return real(at, n, protection, flags, fd, offset);
  refuse(kMmap);
  return MAP_FAILED;
}
int fsync(int fd) {
  static const auto real = next<int (*)(int)>("fsync");
  return fails(kFsync) ? refuse(kFsync) : real(fd);
}
int rename(const char* from, const char* to) {
  static const auto real = next<int (*)(const char*, const char*)>("rename");
  return fails(kRename) ? refuse(kRename) : real(from, to);
}
int linkat(int from, const char* name, int to, const char* as, int flags) {
  static const auto real = next<int (*)(int, const char*, int, const char*, int)>("linkat");
  return fails(kLinkat) ? refuse(kLinkat) : real(from, name, to, as, flags);
}
int fstat(int fd, struct stat* to) {
  static const auto real = next<int (*)(int, struct stat*)>("fstat");
  return fails(kFstat) ? refuse(kFstat) : real(fd, to);
}
int stat(const char* path, struct stat* to) {
  static const auto real = next<int (*)(const char*, struct stat*)>("stat");
  return fails(kStat) ? refuse(kStat) : real(path, to);
}
int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                   void* argument) {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto real = next<Create>("pthread_create");
  return fails(kThread) ? EAGAIN : real(thread, attributes, start, argument);
}

}  // extern "C"

static const Settings g_settings;
