// A checksum of 64 bits at about the speed of memory: it finds damage, not forgers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace specdec {

// Every step is a bijection of its lane, so a change within one aligned word of 8 bytes changes the
// value for certain; any other does with all but 2^-64 of probability. The same on every machine.
class Hash64 {
 public:
  // As if all bytes that were ever added had come at once.
  void add(std::span<const std::byte> bytes) noexcept;
  void add_number(std::uint64_t number) noexcept;
  void add_text(std::string_view text) noexcept;  // and where it ends
  [[nodiscard]] std::uint64_t value() const noexcept;

 private:
  static constexpr std::size_t kLanes = 8;
  static constexpr std::size_t kBlock = kLanes * 8;
  using Lanes = std::array<std::uint64_t, kLanes>;
  static void absorb(Lanes& lanes, const std::byte* block) noexcept;

  Lanes lanes_{1, 2, 3, 4, 5, 6, 7, 8};
  std::array<std::byte, kBlock> rest_{};  // behind the last whole block
  std::size_t n_rest_ = 0;
  std::uint64_t size_ = 0;
};

[[nodiscard]] std::uint64_t hash64(std::span<const std::byte> bytes) noexcept;

}  // namespace specdec
