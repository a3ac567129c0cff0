#include "base/control_groups.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string_view>
#include <vector>

namespace specdec {
namespace {

constexpr std::size_t kMaxDepth = 64;  // of a group that anyone would make

// A mounted tree of groups; version 1 has one for each set of controllers.
struct Tree {
  bool v2 = false;
  std::string controllers;  // ",cpu,cpuacct," of version 1
  std::string top;          // the group that is mounted
  std::string mount_point;

  [[nodiscard]] bool controls(std::string_view controller) const {
    return v2 || controllers.find("," + std::string(controller) + ",") != std::string::npos;
  }
};

// A line of /proc/self/cgroup.
struct Membership {
  bool v2 = false;
  std::string controllers;
  std::string path;
};

template <typename T>
void keep_least(std::optional<T>& least, T value) {
  if (!least || value < *least) least = value;
}

// A whole number and nothing more; "max", "-1" and text are none.
std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::vector<std::string> words_of(const std::string& path) {
  std::ifstream in(path);
  std::vector<std::string> words;
  for (std::string word; words.size() < 4096 && in >> word;) words.push_back(word);
  return words;
}

std::optional<std::uint64_t> read_number(const std::string& path) {
  const std::vector<std::string> words = words_of(path);
  return words.size() == 1 ? parse_number(words[0]) : std::nullopt;
}

// mountinfo writes a space, a tab, a line feed and a backslash as \ooo.
std::string unescape(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto octal = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && i + 3 < text.size() && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                               (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

// 36 35 98:0 /top /mount/point rw,noatime master:1 - cgroup cgroup rw,cpu,cpuacct
std::vector<Tree> mounted_trees(const std::string& root) {
  std::vector<Tree> trees;
  std::ifstream in(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    std::vector<std::string> before;
    std::string field;
    while (fields >> field && field != "-") before.push_back(field);
    std::string type, source, options;
    if (before.size() < 6 || !(fields >> type >> source >> options)) continue;
    if (type != "cgroup" && type != "cgroup2") continue;
    trees.push_back({.v2 = type == "cgroup2",
                     .controllers = "," + options + ",",
                     .top = unescape(before[3]),
                     .mount_point = root + unescape(before[4])});
  }
  if (trees.empty()) {  // no /proc in a sandbox, say: where they usually are
    const std::string usual = root + "/sys/fs/cgroup";
    trees.push_back({.v2 = true, .controllers = {}, .top = "/", .mount_point = usual});
    trees.push_back(
        {.v2 = false, .controllers = ",cpu,", .top = "/", .mount_point = usual + "/cpu"});
    trees.push_back(
        {.v2 = false, .controllers = ",memory,", .top = "/", .mount_point = usual + "/memory"});
  }
  return trees;
}

std::vector<Membership> memberships(const std::string& root) {
  std::vector<Membership> out;
  std::ifstream in(root + "/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    out.push_back({.v2 = controllers.empty(),
                   .controllers = "," + controllers + ",",
                   .path = line.substr(second + 1)});
  }
  return out;
}

// The folders of the group and its ancestors, as far up as the tree is mounted. A path that does
// not lie in the mounted part (a container that was given its own part only) leaves that part.
std::vector<std::string> folders_of(const Tree& tree, const std::string& path) {
  std::string below = path;
  if (tree.top != "/") {
    const bool inside = path == tree.top || path.starts_with(tree.top + "/");
    below = inside ? path.substr(tree.top.size()) : "";
  }
  std::vector<std::string> folders{tree.mount_point};
  std::string folder = tree.mount_point;
  std::istringstream parts(below);
  for (std::string part; std::getline(parts, part, '/') && folders.size() < kMaxDepth;) {
    if (part.empty()) continue;
    if (part == "..") return {tree.mount_point};  // outside of what this namespace shows
    folder += "/" + part;
    folders.push_back(folder);
  }
  return folders;
}

void read_cpu(const std::string& folder, bool v2, ControlGroupLimits& limits) {
  std::optional<std::uint64_t> quota, period;
  if (v2) {
    const std::vector<std::string> words = words_of(folder + "/cpu.max");
    if (words.empty() || words.size() > 2) return;
    quota = parse_number(words[0]);
    period = words.size() == 2 ? parse_number(words[1]) : 100000;
  } else {
    quota = read_number(folder + "/cpu.cfs_quota_us");
    period = read_number(folder + "/cpu.cfs_period_us");
  }
  if (!quota || !period || *quota == 0 || *period == 0) return;
  keep_least(limits.cpu_cores, static_cast<double>(*quota) / static_cast<double>(*period));
}

// Cached pages of files, models above all, count as used but can be dropped; shared memory is among
// them and cannot.
std::uint64_t droppable_bytes(const std::string& folder, bool v2) {
  const std::vector<std::string> words = words_of(folder + "/memory.stat");
  std::uint64_t files = 0, shared = 0;
  for (std::size_t i = 0; i + 1 < words.size(); i += 2) {
    if (words[i] == (v2 ? "file" : "total_cache")) files = parse_number(words[i + 1]).value_or(0);
    if (words[i] == (v2 ? "shmem" : "total_shmem")) shared = parse_number(words[i + 1]).value_or(0);
  }
  return files - std::min(files, shared);
}

void read_memory(const std::string& folder, bool v2, ControlGroupLimits& limits) {
  std::optional<std::uint64_t> limit;
  // Above memory.high a process is slowed down until it frees some.
  for (const char* name : {"/memory.max", "/memory.high", "/memory.limit_in_bytes"}) {
    if (v2 != (std::string_view(name) != "/memory.limit_in_bytes")) continue;
    if (const auto value = read_number(folder + name)) keep_least(limit, *value);
  }
  constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 62;  // version 1 writes "none" as a number
  if (!limit || *limit >= kNoLimit) return;
  keep_least(limits.memory_bytes, *limit);
  const std::uint64_t used =
      read_number(folder + (v2 ? "/memory.current" : "/memory.usage_in_bytes")).value_or(0);
  const std::uint64_t kept = used - std::min(used, droppable_bytes(folder, v2));
  keep_least(limits.free_bytes, *limit - std::min(*limit, kept));
}

}  // namespace

ControlGroupLimits read_control_groups(const std::string& root) {
  ControlGroupLimits limits;
  const std::vector<Membership> groups = memberships(root);
  for (const Tree& tree : mounted_trees(root)) {
    for (const bool cpu : {true, false}) {
      const std::string_view controller = cpu ? "cpu" : "memory";
      if (!tree.controls(controller)) continue;
      std::string path = "/";
      for (const Membership& group : groups) {
        const bool matches =
            tree.v2
                ? group.v2
                : group.controllers.find("," + std::string(controller) + ",") != std::string::npos;
        if (matches) path = group.path;
      }
      for (const std::string& folder : folders_of(tree, path)) {
        if (cpu) {
          read_cpu(folder, tree.v2, limits);
        } else {
          read_memory(folder, tree.v2, limits);
        }
      }
    }
  }
  return limits;
}

int threads_for_cores(double cores) {
  constexpr double kRounding = 0.02;  // 199000 of 100000 microseconds is meant to be 2
  return static_cast<int>(std::clamp(cores + kRounding, 1.0, 1e6));
}

}  // namespace specdec
