// The one place where positions in an untrusted file are computed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "gguf/value.h"

namespace specdec {

// Reads forward; a read that does not fit returns false and moves nothing.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  [[nodiscard]] std::uint64_t position() const noexcept { return position_; }
  [[nodiscard]] std::uint64_t remaining() const noexcept { return bytes_.size() - position_; }
  [[nodiscard]] const std::byte* data() const noexcept { return bytes_.data() + position_; }

  [[nodiscard]] bool skip(std::uint64_t n) noexcept {
    if (n > remaining()) return false;
    position_ += n;
    return true;
  }

  template <typename T>
  [[nodiscard]] bool read(T* out) noexcept {
    if (sizeof(T) > remaining()) return false;
    *out = load_le<T>(data());
    position_ += sizeof(T);
    return true;
  }

 private:
  std::span<const std::byte> bytes_;
  std::uint64_t position_ = 0;
};

}  // namespace specdec
