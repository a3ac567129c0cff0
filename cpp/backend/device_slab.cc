#include "backend/device_slab.h"

#include <algorithm>
#include <iterator>

#include "base/error.h"

namespace specdec {

void DeviceSlab::add(std::byte* data, std::size_t n_bytes) {
  SPECDEC_CHECK(n_bytes > 0 && n_bytes % kAlignment == 0);
  ranges_[data] = n_bytes;
  give_back(data, n_bytes);
}

bool DeviceSlab::remove(std::byte* data, std::size_t n_bytes) {
  const auto part = free_.find(data);
  if (part == free_.end() || part->second != n_bytes) return false;
  free_.erase(part);
  ranges_.erase(data);
  free_bytes_ -= n_bytes;
  return true;
}

std::byte* DeviceSlab::take(std::size_t n_bytes) {
  n_bytes = aligned(std::max<std::size_t>(n_bytes, 1));
  // The shortest that fits: long ranges stay for long parts.
  auto best = free_.end();
  for (auto part = free_.begin(); part != free_.end(); ++part) {
    if (part->second >= n_bytes && (best == free_.end() || part->second < best->second))
      best = part;
  }
  if (best == free_.end()) return nullptr;
  std::byte* data = best->first;
  const std::size_t rest = best->second - n_bytes;
  free_.erase(best);
  if (rest > 0) free_[data + n_bytes] = rest;
  free_bytes_ -= n_bytes;
  return data;
}

void DeviceSlab::give_back(std::byte* data, std::size_t n_bytes) {
  n_bytes = aligned(std::max<std::size_t>(n_bytes, 1));
  free_bytes_ += n_bytes;
  auto next = free_.lower_bound(data);
  if (next != free_.end() && data + n_bytes == next->first && ranges_.count(next->first) == 0) {
    n_bytes += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin() && ranges_.count(data) == 0) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == data) {
      previous->second += n_bytes;
      return;
    }
  }
  free_[data] = n_bytes;
}

std::size_t DeviceSlab::largest_free() const noexcept {
  std::size_t largest = 0;
  for (const auto& [data, n_bytes] : free_) largest = std::max(largest, n_bytes);
  return largest;
}

}  // namespace specdec
