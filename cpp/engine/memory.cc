#include "engine/memory.h"

#include <unistd.h>

#include <algorithm>

#include "base/control_groups.h"
#include "base/system.h"

namespace specdec {

std::uint64_t available_memory_bytes() {
  std::uint64_t available = free_memory_bytes();
  if (available == 0) {
    const long pages = ::sysconf(_SC_PHYS_PAGES), page_size = ::sysconf(_SC_PAGE_SIZE);
    available = pages > 0 && page_size > 0
                    ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page_size) / 2
                    : std::uint64_t{1} << 30;
  }
  if (const auto left = read_control_groups().free_bytes) available = std::min(available, *left);
  return available;
}

}  // namespace specdec
