// What the control groups of this process leave it, in versions 1 and 2 of the kernel's interface.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace specdec {

// A group may use no more than any of its ancestors, so each value is the least over the group and
// all its ancestors that can be seen. Empty: no limit.
struct ControlGroupLimits {
  std::optional<double> cpu_cores;            // CPU time per time
  std::optional<std::uint64_t> memory_bytes;  // the smallest limit
  std::optional<std::uint64_t> free_bytes;    // the least that a limit leaves; files that are
                                              // cached count as free
};

// Reads /proc/self/cgroup, /proc/self/mountinfo and the groups' files below `root`, a folder that
// tests put in front of every path. What is missing or malformed sets no limit.
[[nodiscard]] ControlGroupLimits read_control_groups(const std::string& root = "");

// Threads worth starting on so much CPU time: whole cores, at least 1. Threads of one pass wait for
// each other, so with more of them than whole cores all stand still once the time of a period is
// used up, and those that wait use it up.
[[nodiscard]] int threads_for_cores(double cores);

}  // namespace specdec
