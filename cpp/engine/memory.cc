#include "engine/memory.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace specdec {
namespace {

// The number in a file of one word; false for "max" or no file.
bool read_number(const char* path, std::uint64_t& value) {
  std::ifstream in(path);
  return static_cast<bool>(in >> value);
}

}  // namespace

std::uint64_t available_memory_bytes() {
  std::uint64_t available = 0;
  std::ifstream meminfo("/proc/meminfo");
  std::string word;
  while (meminfo >> word) {
    if (word != "MemAvailable:") continue;
    if (meminfo >> available) available *= 1024;
    break;
  }
  if (available == 0) {
    const long pages = ::sysconf(_SC_PHYS_PAGES), page_size = ::sysconf(_SC_PAGE_SIZE);
    available = pages > 0 && page_size > 0
                    ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page_size) / 2
                    : std::uint64_t{1} << 30;
  }
  std::uint64_t limit = 0, used = 0;
  if (read_number("/sys/fs/cgroup/memory.max", limit) &&
      read_number("/sys/fs/cgroup/memory.current", used)) {
    // File pages, mapped models above all, are counted there but can be dropped.
    std::ifstream stat("/sys/fs/cgroup/memory.stat");
    for (std::uint64_t value = 0; stat >> word >> value;) {
      if (word == "file") used -= std::min(used, value);
    }
    available = std::min(available, limit - std::min(used, limit));
  }
  return available;
}

}  // namespace specdec
