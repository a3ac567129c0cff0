#include "base/hash.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace specdec {
namespace {

// Odd, with bits in no pattern: the first digits behind the point of the roots of 2 and 3.
constexpr std::uint64_t kWord = 0x6A09E667F3BCC909;
constexpr std::uint64_t kLane = 0xBB67AE8584CAA73B;

constexpr std::uint64_t mix(std::uint64_t lane, std::uint64_t word) noexcept {
  return std::rotl(lane ^ (word * kWord), 29) * kLane;
}

std::uint64_t load_word(const std::byte* data) noexcept {
  std::uint64_t word = 0;
  std::memcpy(&word, data, sizeof word);
  if constexpr (std::endian::native == std::endian::big) {
    std::uint64_t turned = 0;
    for (int i = 0; i < 8; ++i) turned |= (word >> (8 * i) & 0xFF) << (56 - 8 * i);
    word = turned;
  }
  return word;
}

}  // namespace

void Hash64::absorb(Lanes& lanes, const std::byte* block) noexcept {
  for (std::size_t i = 0; i < kLanes; ++i) lanes[i] = mix(lanes[i], load_word(block + 8 * i));
}

void Hash64::add(std::span<const std::byte> bytes) noexcept {
  size_ += bytes.size();
  if (n_rest_ > 0) {
    const std::size_t n = std::min(bytes.size(), kBlock - n_rest_);
    std::copy_n(bytes.begin(), n, rest_.begin() + static_cast<std::ptrdiff_t>(n_rest_));
    n_rest_ += n;
    bytes = bytes.subspan(n);
    if (n_rest_ < kBlock) return;
    absorb(lanes_, rest_.data());
    n_rest_ = 0;
  }
  Lanes lanes = lanes_;  // in registers
  const std::size_t n_blocks = bytes.size() / kBlock;
  for (std::size_t i = 0; i < n_blocks; ++i) absorb(lanes, bytes.data() + i * kBlock);
  lanes_ = lanes;
  bytes = bytes.subspan(n_blocks * kBlock);
  std::copy(bytes.begin(), bytes.end(), rest_.begin());
  n_rest_ = bytes.size();
}

void Hash64::add_number(std::uint64_t number) noexcept {
  std::array<std::byte, 8> bytes{};
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>(number >> (8 * i));
  add(bytes);
}

void Hash64::add_text(std::string_view text) noexcept {
  add_number(text.size());
  add(std::as_bytes(std::span(text.data(), text.size())));
}

std::uint64_t Hash64::value() const noexcept {
  Lanes lanes = lanes_;
  if (n_rest_ > 0) {
    std::array<std::byte, kBlock> last{};
    std::copy_n(rest_.begin(), n_rest_, last.begin());
    absorb(lanes, last.data());
  }
  std::uint64_t value = mix(0, size_);
  for (const std::uint64_t lane : lanes) value = mix(value, lane);
  value ^= value >> 32;
  value *= kLane;
  return value ^ (value >> 29);
}

std::uint64_t hash64(std::span<const std::byte> bytes) noexcept {
  Hash64 hash;
  hash.add(bytes);
  return hash.value();
}

}  // namespace specdec
