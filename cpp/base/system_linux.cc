#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "base/open_file.h"
#include "base/system.h"

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace specdec {

void advise_huge_pages(void* data, std::size_t n_bytes) noexcept {
  (void)::madvise(data, n_bytes, MADV_HUGEPAGE);
}

void map_pages(const void* data, std::size_t n_bytes) noexcept {
  constexpr int kPopulateRead = 22;  // MADV_POPULATE_READ of Linux 5.14, which old headers lack
  (void)::madvise(const_cast<void*>(data), n_bytes, kPopulateRead);
}

std::uint64_t modified_ns(const struct stat& info) noexcept {
  return static_cast<std::uint64_t>(info.st_mtim.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(info.st_mtim.tv_nsec);
}

static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));

void sleep_on(const std::atomic<std::uint32_t>& word, std::uint32_t value) noexcept {
  (void)::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void wake_sleepers(std::atomic<std::uint32_t>& word) noexcept {
  (void)::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, std::numeric_limits<int>::max(), nullptr,
                  nullptr, 0);
}

int current_processor() noexcept { return ::sched_getcpu(); }

bool move_thread(std::thread& thread, const Processors& taken) noexcept {
  cpu_set_t allowed;
  if (::pthread_getaffinity_np(thread.native_handle(), sizeof allowed, &allowed) != 0) return false;
  cpu_set_t others = allowed;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (taken.test(static_cast<std::size_t>(cpu))) CPU_CLR(cpu, &others);
  // Fails where no processor is left. The system knows best which of them.
  if (::pthread_setaffinity_np(thread.native_handle(), sizeof others, &others) != 0) return false;
  return ::pthread_setaffinity_np(thread.native_handle(), sizeof allowed, &allowed) == 0;
}

namespace {

// Of the processors that this process may use; empty: not known. cpu_set_t has no more than 1024.
std::vector<int> usable_processors() {
  for (std::size_t n = CPU_SETSIZE; n <= (std::size_t{1} << 20); n *= 4) {
    std::vector<unsigned long> bits(n / (8 * sizeof(unsigned long)));
    auto* mask = reinterpret_cast<cpu_set_t*>(bits.data());
    const std::size_t n_bytes = bits.size() * sizeof(unsigned long);
    if (::sched_getaffinity(0, n_bytes, mask) != 0) {
      if (errno == EINVAL) continue;  // the system has more
      break;
    }
    std::vector<int> found;
    for (std::size_t cpu = 0; cpu < n; ++cpu)
      if (CPU_ISSET_S(cpu, n_bytes, mask)) found.push_back(static_cast<int>(cpu));
    return found;
  }
  return {};
}

}  // namespace

int usable_cores() {
  // Hyper-thread siblings share their vector units: count each core once.
  std::set<std::string> cores;
  for (const int cpu : usable_processors()) {
    const std::string base =
        "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list";
    std::ifstream siblings(base);
    std::string line;
    cores.insert(std::getline(siblings, line) ? line : std::to_string(cpu));
  }
  return std::max(static_cast<int>(cores.size()), 1);
}

std::uint64_t free_memory_bytes() {
  std::ifstream meminfo("/proc/meminfo");
  for (std::string word; meminfo >> word;) {
    std::uint64_t available = 0;
    if (word == "MemAvailable:") return meminfo >> available ? available * 1024 : 0;
  }
  return 0;
}

std::string processor_name() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.starts_with("model name")) return line;
  }
  return {};
}

namespace {

// Of the highest level up to `most`.
std::uint64_t cache_bytes(const std::string& root, int most) {
  std::uint64_t bytes = 0;
  int best_level = 0;
  for (int i = 0; i < 8; ++i) {
    const std::string folder =
        root + "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/";
    int level = 0;
    std::uint64_t size = 0;
    char unit = 0;
    std::ifstream(folder + "level") >> level;
    std::ifstream in(folder + "size");
    if (!(in >> size) || level <= best_level || level > most) continue;
    in >> unit;
    const int shift = unit == 'K' ? 10 : unit == 'M' ? 20 : unit == 'G' ? 30 : 0;
    if (size > (~std::uint64_t{0} >> shift)) continue;
    best_level = level;
    bytes = size << shift;
  }
  return bytes;
}

}  // namespace

std::uint64_t last_level_cache_bytes(const std::string& root) { return cache_bytes(root, 99); }

std::uint64_t second_level_cache_bytes(const std::string& root) { return cache_bytes(root, 2); }

std::optional<CpuTicks> read_cpu_ticks(const std::string& root) {
  std::ifstream in(root + "/proc/stat");
  std::string name;
  if (!(in >> name) || name != "cpu") return std::nullopt;
  // user nice system idle iowait irq softirq steal; guests are part of user.
  CpuTicks ticks;
  for (int i = 0; i < 8; ++i) {
    std::uint64_t value = 0;
    if (!(in >> value)) return std::nullopt;
    ticks.total += value;
    if (i == 7) ticks.stolen = value;
  }
  return ticks;
}

bool may_use_tiles() noexcept {
#if defined(__x86_64__)
  // ARCH_REQ_XCOMP_PERM for XFEATURE_XTILEDATA, of Linux 5.16. For all threads, and for good.
  static const bool granted = [] {
    constexpr int kRequest = 0x1023;
    constexpr unsigned long kTileData = 18;
    const int before = errno;
    const bool yes = ::syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
    errno = before;
    return yes;
  }();
  return granted;
#else
  return false;
#endif
}

std::vector<const char*> missing_arm_features([[maybe_unused]] bool matrix_products) {
  std::vector<const char*> out;
#if defined(__aarch64__)
  const unsigned long has = ::getauxval(AT_HWCAP);
  if ((has & HWCAP_ASIMDDP) == 0) out.push_back("asimddp");
  // Parts of Armv8.2-A that the compiler may use as well.
  if ((has & HWCAP_ATOMICS) == 0) out.push_back("atomics");
  if ((has & HWCAP_ASIMDRDM) == 0) out.push_back("asimdrdm");
  if ((has & HWCAP_CRC32) == 0) out.push_back("crc32");
  // Not every libc's headers know the name.
  constexpr unsigned long kI8mm = 1UL << 13;  // HWCAP2_I8MM
  if (matrix_products && (::getauxval(AT_HWCAP2) & kI8mm) == 0) out.push_back("i8mm");
#endif
  return out;
}

long current_thread_id() noexcept { return ::syscall(SYS_gettid); }

int open_nameless_file(const std::string& folder, std::string& path) {
  path.reserve(64);  // nothing may be thrown with the file open
  const int fd = open_uninterrupted(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
  if (fd < 0) return -1;
  path = "/proc/self/fd/" + std::to_string(fd);
  if (::access(path.c_str(), R_OK) == 0) return fd;
  ::close(fd);
  return -1;
}

bool sync_to_disk(int fd) noexcept { return ::fsync(fd) == 0; }

}  // namespace specdec
