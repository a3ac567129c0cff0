// Parts of reserved memory: the shortest fit; neighbours merge when they come back. Host code only,
// so that it is the same for a GPU and for tests.
#pragma once

#include <cstddef>
#include <map>
#include <optional>

namespace specdec {

// Hands out ranges of address space it never touches. Not thread-safe.
class DeviceSlab {
 public:
  // Part boundaries; a multiple of every alignment a kernel asks for.
  static constexpr std::size_t kAlignment = 256;
  [[nodiscard]] static constexpr std::size_t aligned(std::size_t n_bytes) {
    return (n_bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  void add(std::byte* data, std::size_t n_bytes);
  // A range that add() brought; false, and nothing changes, unless all of it is free.
  [[nodiscard]] bool remove(std::byte* data, std::size_t n_bytes);

  [[nodiscard]] std::byte* take(std::size_t n_bytes);  // null: no range is long enough
  void give_back(std::byte* data, std::size_t n_bytes);

  [[nodiscard]] std::size_t free_bytes() const noexcept { return free_bytes_; }
  [[nodiscard]] std::size_t largest_free() const noexcept;

 private:
  std::map<std::byte*, std::size_t> free_;    // by address
  std::map<std::byte*, std::size_t> ranges_;  // what was added: parts of two ranges never merge
  std::size_t free_bytes_ = 0;
};

}  // namespace specdec
