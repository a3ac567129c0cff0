#include "engine/host.h"

#include <algorithm>
#include <fstream>

namespace specdec {

std::uint64_t last_level_cache_bytes(const std::string& root) {
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
    if (!(in >> size) || level <= best_level) continue;
    in >> unit;
    const int shift = unit == 'K' ? 10 : unit == 'M' ? 20 : unit == 'G' ? 30 : 0;
    if (size > (~std::uint64_t{0} >> shift)) continue;
    best_level = level;
    bytes = size << shift;
  }
  return bytes;
}

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

double relative_spread(std::vector<double> values) {
  if (values.size() < 3) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t last = values.size() - 1;
  const double middle = values[values.size() / 2];
  return middle > 0 ? (values[last - last / 4] - values[last / 4]) / middle : 0;
}

}  // namespace specdec
