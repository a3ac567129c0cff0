// Element types of tensors; ids equal those of GGUF.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace specdec {

enum class DType : std::uint32_t {
#define SPECDEC_FORMAT(name, folder, id, ...) k##name = id,
#include "tensor/formats.def"
};

namespace dtype_detail {
enum Place : int {
#define SPECDEC_FORMAT(name, ...) k##name,
#include "tensor/formats.def"
  kCount
};
}  // namespace dtype_detail

// The types this engine computes with, and a type's place among them: tables have one entry each.
inline constexpr int kDTypeCount = dtype_detail::kCount;
[[nodiscard]] constexpr int dtype_index(DType dtype) {
  switch (dtype) {
#define SPECDEC_FORMAT(name, ...) \
  case DType::k##name:            \
    return dtype_detail::k##name;
#include "tensor/formats.def"
  }
  return 0;  // no type has come this far without find_dtype()
}

// Of half_at: bits 4i .. 4i + 3 of the number are the upper nibble of the block's u16 4 - i from
// the end.
inline constexpr int kSpreadHalf = -2;

// What the types are, and their packed sizes.
struct DTypeTraits {
  DType dtype;
  const char* name;              // "Q4_K"
  std::uint32_t block_elements;  // weights per block
  std::uint32_t block_bytes;     // bytes per block
  int half_at[2];                // where in a block its f16 numbers are; -1: none; kSpreadHalf
  int file_type;                 // general.file_type of models in it; -1: only mixes have one
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
