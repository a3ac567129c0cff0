// Element types of tensors; ids equal those of GGUF.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace specdec {

enum class DType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

// The types this engine computes with, and their packed sizes.
struct DTypeTraits {
  DType dtype;
  const char* name;              // "Q4_K"
  std::uint32_t block_elements;  // weights per block
  std::uint32_t block_bytes;     // bytes per block
};

// nullptr when the id is not one of the supported types.
[[nodiscard]] const DTypeTraits* find_dtype(std::uint32_t id) noexcept;
[[nodiscard]] const DTypeTraits& dtype_traits(DType dtype);
[[nodiscard]] const std::vector<DTypeTraits>& all_dtypes();
[[nodiscard]] std::optional<DType> parse_dtype(std::string_view name);  // case-insensitive

// Name of any id GGUF has ever used, e.g. 19 -> "IQ1_S", 31 -> "Q4_0_4_4 (removed)"; "" if unknown.
[[nodiscard]] std::string gguf_type_name(std::uint32_t id);

// Bytes of a row of n elements; n must be a multiple of block_elements.
[[nodiscard]] std::uint64_t row_bytes(DType dtype, std::uint64_t n_elements);

}  // namespace specdec
