// A seeded hash set of names that live elsewhere, by their position: finds duplicates in O(n)
// whatever names a file chooses.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

namespace specdec {

// Drawn once per process, so that a file cannot be built to collide.
[[nodiscard]] std::uint64_t name_hash_seed();

[[nodiscard]] inline std::uint64_t hash_name(std::string_view name, std::uint64_t seed) {
  const auto mix = [](std::uint64_t h) {
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93ULL;
    h ^= h >> 29;
    h *= 0xa0761d6478bd642fULL;
    return h ^ (h >> 32);
  };
  std::uint64_t hash = mix(seed ^ name.size());
  std::size_t i = 0;
  for (; i + 8 <= name.size(); i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, name.data() + i, 8);
    hash = mix(hash ^ word) + seed;
  }
  std::uint64_t tail = 0;
  if (i < name.size()) std::memcpy(&tail, name.data() + i, name.size() - i);
  return mix(hash ^ tail);
}

class NameIndex {
 public:
  // Room for n names; 8 bytes of memory each at least.
  void reset(std::uint64_t n) {
    seed_ = name_hash_seed();
    slots_.assign(std::bit_ceil(n + n / 2 + 2), 0);
  }

  // `name_of(i)` gives the name at position i. Returns the position of an equal name, or inserts.
  template <typename NameOf>
  std::optional<std::uint32_t> insert(std::uint32_t position, NameOf name_of) {
    const std::string_view name = name_of(position);
    const std::size_t slot = find_slot(name, name_of);
    if (slots_[slot] != 0) return slots_[slot] - 1;
    slots_[slot] = position + 1;
    return std::nullopt;
  }

  template <typename NameOf>
  [[nodiscard]] std::optional<std::uint32_t> find(std::string_view name, NameOf name_of) const {
    if (slots_.empty()) return std::nullopt;
    const std::size_t slot = find_slot(name, name_of);
    if (slots_[slot] == 0) return std::nullopt;
    return slots_[slot] - 1;
  }

 private:
  template <typename NameOf>
  [[nodiscard]] std::size_t find_slot(std::string_view name, NameOf name_of) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t slot = hash_name(name, seed_) & mask;
    while (slots_[slot] != 0 && name_of(slots_[slot] - 1) != name) slot = (slot + 1) & mask;
    return slot;
  }

  std::uint64_t seed_ = 0;
  std::vector<std::uint32_t> slots_;  // position + 1, 0 when free; a power of two of them
};

}  // namespace specdec
