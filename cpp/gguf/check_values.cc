#include "base/error.h"
#include "gguf/reader.h"
#include "gguf/rules.h"

namespace specdec {
namespace {

// First index i < n where value i, read at data + i * stride, has all exponent bits set; n if none.
template <typename T>
std::uint64_t first_non_finite(const std::byte* data, std::uint64_t n, std::uint64_t stride,
                               T exponent) {
  for (std::uint64_t i = 0; i < n; ++i) {
    if ((load_le<T>(data + i * stride) & exponent) == exponent) return i;
  }
  return n;
}

// The same for a number that is spread over blocks of n_bytes (kSpreadHalf).
std::uint64_t first_non_finite_spread(const std::byte* data, std::uint64_t n,
                                      std::uint64_t n_bytes) {
  for (std::uint64_t i = 0; i < n; ++i) {
    const std::byte* end = data + (i + 1) * n_bytes;
    const unsigned top = load_le<std::uint16_t>(end - 2) & 0x7000U;
    if (top == 0x7000U && (load_le<std::uint16_t>(end - 4) & 0xC000U) == 0xC000U) return i;
  }
  return n;
}

}  // namespace

void check_tensor_values(const GgufFile& file, const TensorInfo& tensor) {
  const std::span<const std::byte> data = file.tensor_data(tensor);
  const DTypeTraits& traits = dtype_traits(tensor.dtype);
  const std::uint64_t n_blocks = tensor.n_bytes / traits.block_bytes;
  const auto fail_at = [&](std::uint64_t block, std::uint64_t byte_in_block) {
    const std::uint64_t element = block * traits.block_elements;
    const std::uint64_t offset = tensor.offset + block * traits.block_bytes + byte_in_block;
    throw file.make_error(ErrorCode::kModelFormat, "non_finite",
                          "tensor '" + printable(tensor.name) +
                              "' has a value that is NaN or infinite at element " +
                              std::to_string(element) + ", offset " + gguf_rules::hex(offset),
                          {}, tensor.name, offset);
  };
  if (tensor.dtype == DType::kF32 || tensor.dtype == DType::kBF16) {
    const std::uint64_t bad =
        tensor.dtype == DType::kF32
            ? first_non_finite<std::uint32_t>(data.data(), n_blocks, 4, 0x7F800000U)
            : first_non_finite<std::uint16_t>(data.data(), n_blocks, 2, std::uint16_t{0x7F80});
    if (bad != n_blocks) fail_at(bad, 0);
    return;
  }
  if (traits.half_at[0] == kSpreadHalf) {
    const std::uint64_t bad = first_non_finite_spread(data.data(), n_blocks, traits.block_bytes);
    if (bad != n_blocks) fail_at(bad, traits.block_bytes - 8);
  }
  for (const int position : traits.half_at) {
    if (position < 0) continue;
    const std::uint64_t bad = first_non_finite<std::uint16_t>(
        data.data() + position, n_blocks, traits.block_bytes, std::uint16_t{0x7C00});
    if (bad != n_blocks) fail_at(bad, static_cast<std::uint64_t>(position));
  }
}

}  // namespace specdec
