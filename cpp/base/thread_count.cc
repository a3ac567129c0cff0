#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string>
#include <string_view>
#include <system_error>

#include "base/control_groups.h"
#include "base/error.h"
#include "base/system.h"
#include "base/thread_pool.h"

namespace specdec {

int ThreadPool::default_n_threads() {
  if (const char* given = std::getenv("SPECDEC_THREADS"); given != nullptr && *given != '\0') {
    const std::string_view text = given;
    int n = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    if (error != std::errc() || end != text.data() + text.size() || n < 1 || n > kMaxThreads) {
      throw_invalid("SPECDEC_THREADS must be a whole number from 1 to " +
                    std::to_string(kMaxThreads) + ", not '" + printable(text) + "'");
    }
    return n;
  }
  int n = usable_cores();
  if (const auto cores_left = read_control_groups().cpu_cores)
    n = std::min(n, threads_for_cores(*cores_left));
  return std::clamp(n, 1, kMaxThreads);
}

}  // namespace specdec
