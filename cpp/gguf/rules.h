// The rules of the format that reader and writer share.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "tensor/dtype.h"

namespace specdec::gguf_rules {

inline constexpr std::uint32_t kDefaultAlignment = 32;
inline constexpr std::uint32_t kMaxAlignment = 65536;
inline constexpr std::size_t kMaxKeyBytes = 65535;
inline constexpr std::size_t kMaxTensorNameBytes = 63;
inline constexpr std::uint32_t kMaxDims = 4;
// Smallest records, an empty name included: u64 length, u32 type, 1 byte; u64 length, u32 n_dims,
// one u64 size, u32 type, u64 offset.
inline constexpr std::uint64_t kMinKeyValueBytes = 13;
inline constexpr std::uint64_t kMinTensorBytes = 32;

// What is wrong, as the reason code and a sentence; reason is nullptr when nothing is.
struct Problem {
  const char* reason = nullptr;
  std::string text;
  explicit operator bool() const noexcept { return reason != nullptr; }
};

[[nodiscard]] bool is_utf8(std::string_view text);
[[nodiscard]] Problem check_key(std::string_view key);
[[nodiscard]] Problem check_tensor_name(std::string_view name);

struct TensorSize {
  std::uint64_t n_elements = 0;
  std::uint64_t n_bytes = 0;
};
// Computes the size of a tensor; shape innermost first.
[[nodiscard]] Problem check_shape(std::span<const std::uint64_t> shape, DType dtype,
                                  TensorSize* size);

// A power of two from 8 to kMaxAlignment.
[[nodiscard]] bool is_valid_alignment(std::uint32_t alignment);

[[nodiscard]] std::string hex(std::uint64_t value);                            // "0x1a2b40"
[[nodiscard]] std::string shape_string(std::span<const std::uint64_t> shape);  // "[64, 32]"

}  // namespace specdec::gguf_rules
