#include <fcntl.h>
#include <mach/mach.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <unistd.h>

#include <algorithm>

#include "base/system.h"

namespace specdec {
namespace {

// 0 where the system does not know the name.
template <typename T = int>
T number(const char* name) noexcept {
  T value = 0;
  std::size_t n_bytes = sizeof value;
  return ::sysctlbyname(name, &value, &n_bytes, nullptr, 0) == 0 ? value : T{0};
}

}  // namespace

void sleep_on(const std::atomic<std::uint32_t>& word, std::uint32_t value) noexcept {
  word.wait(value);
}

void wake_sleepers(std::atomic<std::uint32_t>& word) noexcept { word.notify_all(); }

int current_processor() noexcept { return -1; }

bool move_thread(std::thread&, const Processors&) noexcept { return false; }

void advise_huge_pages(void*, std::size_t) noexcept {}

void map_pages(const void*, std::size_t) noexcept {}

std::uint64_t modified_ns(const struct stat& info) noexcept {
  return static_cast<std::uint64_t>(info.st_mtimespec.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(info.st_mtimespec.tv_nsec);
}

int usable_cores() {
  // Every part of a layer waits for the slowest thread: efficiency cores would hold up the others.
  const int fast = number("hw.perflevel0.physicalcpu");
  return std::max(fast > 0 ? fast : number("hw.physicalcpu"), 1);
}

std::uint64_t free_memory_bytes() {
  vm_statistics64 pages = {};
  mach_msg_type_number_t n_words = HOST_VM_INFO64_COUNT;
  const mach_port_t host = ::mach_host_self();
  const kern_return_t result =
      ::host_statistics64(host, HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages), &n_words);
  ::mach_port_deallocate(::mach_task_self(), host);
  if (result != KERN_SUCCESS) return 0;
  // Inactive pages are mostly those of files.
  const std::uint64_t n_pages =
      std::uint64_t{pages.free_count} + pages.inactive_count + pages.purgeable_count;
  return n_pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

std::string processor_name() {
  char name[256] = {};
  std::size_t n_bytes = sizeof name - 1;
  return ::sysctlbyname("machdep.cpu.brand_string", name, &n_bytes, nullptr, 0) == 0 ? name : "";
}

std::uint64_t last_level_cache_bytes(const std::string&) {
  // Processors of Apple tell no third level; the second one is that of a cluster of fast cores.
  for (const char* name : {"hw.l3cachesize", "hw.perflevel0.l2cachesize", "hw.l2cachesize"}) {
    const auto n_bytes = number<std::int64_t>(name);
    if (n_bytes > 0) return static_cast<std::uint64_t>(n_bytes);
  }
  return 0;
}

std::uint64_t second_level_cache_bytes(const std::string&) {
  for (const char* name : {"hw.perflevel0.l2cachesize", "hw.l2cachesize"}) {
    const auto n_bytes = number<std::int64_t>(name);
    if (n_bytes > 0) return static_cast<std::uint64_t>(n_bytes);
  }
  return 0;
}

std::optional<CpuTicks> read_cpu_ticks(const std::string&) {
  host_cpu_load_info load = {};
  mach_msg_type_number_t n_words = HOST_CPU_LOAD_INFO_COUNT;
  const mach_port_t host = ::mach_host_self();
  const kern_return_t result =
      ::host_statistics(host, HOST_CPU_LOAD_INFO, reinterpret_cast<host_info_t>(&load), &n_words);
  ::mach_port_deallocate(::mach_task_self(), host);
  if (result != KERN_SUCCESS) return std::nullopt;
  CpuTicks ticks;  // what a host takes from a guest is not told
  for (const natural_t n : load.cpu_ticks) ticks.total += n;
  return ticks;
}

bool may_use_tiles() noexcept { return false; }

std::vector<const char*> missing_arm_features([[maybe_unused]] bool matrix_products) {
  std::vector<const char*> out;
#if defined(__aarch64__)
  if (number("hw.optional.arm.FEAT_DotProd") == 0) out.push_back("asimddp");
  if (number("hw.optional.arm.FEAT_LSE") == 0) out.push_back("atomics");
  if (number("hw.optional.arm.FEAT_RDM") == 0) out.push_back("asimdrdm");
  if (number("hw.optional.armv8_crc32") == 0) out.push_back("crc32");
  if (matrix_products && number("hw.optional.arm.FEAT_I8MM") == 0) out.push_back("i8mm");
#endif
  return out;
}

// Not the system's number of the thread, which only a call that may lock can tell.
long current_thread_id() noexcept { return reinterpret_cast<long>(::pthread_self()); }

int open_nameless_file(const std::string&, std::string&) { return -1; }

// fsync() leaves the data in the disk's own memory here. File systems that do not know the stronger
// call have the weaker one.
bool sync_to_disk(int fd) noexcept { return ::fcntl(fd, F_FULLFSYNC) == 0 || ::fsync(fd) == 0; }

}  // namespace specdec
