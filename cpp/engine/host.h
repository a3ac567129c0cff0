// What a measurement needs to know of the machine around it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace specdec {

// Bytes of the last-level cache that the first processor sees, 0 where the system does not tell.
// `root`: where the system's files are, for tests.
[[nodiscard]] std::uint64_t last_level_cache_bytes(const std::string& root = "");

// Ticks of all processors since the start: all, and those that the host gave to somebody else.
struct CpuTicks {
  std::uint64_t total = 0;
  std::uint64_t stolen = 0;
};
[[nodiscard]] std::optional<CpuTicks> read_cpu_ticks(const std::string& root = "");

// The middle half of `values` over their median: 0 for equal ones and for fewer than three.
[[nodiscard]] double relative_spread(std::vector<double> values);

}  // namespace specdec
