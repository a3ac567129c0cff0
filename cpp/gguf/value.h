// Metadata values of a GGUF file: typed views into the file's bytes, nothing is copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace specdec {

// Ids as stored in the file.
enum class GgufType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

[[nodiscard]] const char* gguf_value_type_name(GgufType type);     // "u32", "string", "array"
[[nodiscard]] std::uint32_t gguf_value_type_bytes(GgufType type);  // 0 for strings and arrays
[[nodiscard]] bool is_gguf_integer(GgufType type);

// One value. The bytes were checked when the file was parsed: every bool is 0 or 1, every string of
// an array ends inside `extent()`. Getters that meet another type throw Error(kModelFormat,
// wrong_type) without a key; GgufFile's getters add it.
class GgufValue {
 public:
  GgufValue() = default;
  // `data` points at the first value byte (strings: after the length; arrays: after the count).
  GgufValue(GgufType type, GgufType element_type, const std::byte* data, std::uint64_t count,
            std::uint64_t n_bytes)
      : data_(data), count_(count), n_bytes_(n_bytes), type_(type), element_type_(element_type) {}

  [[nodiscard]] GgufType type() const noexcept { return type_; }
  [[nodiscard]] bool is_array() const noexcept { return type_ == GgufType::kArray; }
  // Of an array; equal to type() otherwise.
  [[nodiscard]] GgufType element_type() const noexcept { return element_type_; }
  // Elements of an array, bytes of a string, 1 otherwise.
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] const std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::uint64_t n_bytes() const noexcept { return n_bytes_; }

  [[nodiscard]] std::string type_name() const;  // "u32", "array of string"

  // Any integer type holding a value >= 0.
  [[nodiscard]] std::uint64_t as_u64() const;
  [[nodiscard]] std::int64_t as_i64() const;
  [[nodiscard]] float as_f32() const;   // f32 or f64
  [[nodiscard]] double as_f64() const;  // f32 or f64
  [[nodiscard]] bool as_bool() const;
  [[nodiscard]] std::string_view as_string() const;

  [[nodiscard]] std::vector<float> as_f32_array() const;          // f32 or f64 elements
  [[nodiscard]] std::vector<std::int32_t> as_i32_array() const;   // i32, or u32 within range
  [[nodiscard]] std::vector<std::uint64_t> as_u64_array() const;  // any integers >= 0
  [[nodiscard]] std::vector<bool> as_bool_array() const;
  // Views into the file; 16 bytes of memory per string.
  [[nodiscard]] std::vector<std::string_view> as_string_array() const;

  // For people: numbers as such, text quoted and escaped, arrays as "[1, 2, ...] (array of u32,
  // 9)"; about max_bytes long at most.
  [[nodiscard]] std::string to_display_string(std::size_t max_bytes = 80) const;

 private:
  const std::byte* data_ = nullptr;
  std::uint64_t count_ = 0;
  std::uint64_t n_bytes_ = 0;
  GgufType type_ = GgufType::kU8;
  GgufType element_type_ = GgufType::kU8;
};

// Unaligned little-endian load.
template <typename T>
[[nodiscard]] T load_le(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

}  // namespace specdec
