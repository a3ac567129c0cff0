#include "gguf/rules.h"

#include <bit>
#include <cstdio>
#include <limits>

#include "base/checked.h"
#include "base/error.h"

namespace specdec::gguf_rules {

bool is_utf8(std::string_view text) {
  const auto byte_at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned char lead = byte_at(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    // Length, and the range of the second byte that excludes overlong forms, surrogates and >
    // U+10FFFF.
    std::size_t length = 0;
    unsigned char low = 0x80;
    unsigned char high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF) {
      length = 2;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
      length = 3;
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      length = 4;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    } else {
      return false;
    }
    if (length > text.size() - i) return false;
    if (byte_at(i + 1) < low || byte_at(i + 1) > high) return false;
    for (std::size_t k = 2; k < length; ++k) {
      if ((byte_at(i + k) & 0xC0) != 0x80) return false;
    }
    i += length;
  }
  return true;
}

namespace {
bool has_control_bytes(std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) return true;
  }
  return false;
}
}  // namespace

Problem check_key(std::string_view key) {
  if (key.empty()) return {"bad_key", "has an empty metadata key"};
  const std::string quoted = "metadata key '" + printable(key) + "'";
  if (key.size() > kMaxKeyBytes) {
    return {"bad_key", quoted + " is " + std::to_string(key.size()) + " bytes long, at most " +
                           std::to_string(kMaxKeyBytes) + " are allowed"};
  }
  if (has_control_bytes(key)) return {"bad_key", quoted + " contains control characters"};
  if (!is_utf8(key)) return {"bad_utf8", quoted + " is not valid UTF-8"};
  return {};
}

Problem check_tensor_name(std::string_view name) {
  if (name.empty()) return {"bad_name", "has a tensor with an empty name"};
  const std::string quoted = "tensor name '" + printable(name) + "'";
  if (name.size() > kMaxTensorNameBytes) {
    return {"bad_name", quoted + " is " + std::to_string(name.size()) + " bytes long, at most " +
                            std::to_string(kMaxTensorNameBytes) + " are allowed"};
  }
  if (has_control_bytes(name)) return {"bad_name", quoted + " contains control characters"};
  if (!is_utf8(name)) return {"bad_utf8", quoted + " is not valid UTF-8"};
  return {};
}

Problem check_shape(std::span<const std::uint64_t> shape, DType dtype, TensorSize* size) {
  if (shape.empty() || shape.size() > kMaxDims) {
    return {"bad_ndims", "has " + std::to_string(shape.size()) + " dimensions, expected 1 to 4"};
  }
  constexpr auto kMaxI64 = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  std::uint64_t n_elements = 1;
  for (const std::uint64_t n : shape) {
    if (n == 0 || n > kMaxI64) {
      return {"bad_dim", "has shape " + shape_string(shape) + ", every size must be 1 to 2^63-1"};
    }
    const auto product = checked_mul(n_elements, n);
    if (!product || *product > kMaxI64) {
      return {"size_overflow", "has shape " + shape_string(shape) + ", more than 2^63-1 elements"};
    }
    n_elements = *product;
  }
  const DTypeTraits& traits = dtype_traits(dtype);
  if (shape[0] % traits.block_elements != 0) {
    return {"bad_block", "has rows of " + std::to_string(shape[0]) + " elements, " + traits.name +
                             " needs a multiple of " + std::to_string(traits.block_elements)};
  }
  const auto n_bytes = checked_mul(n_elements / traits.block_elements, traits.block_bytes);
  if (!n_bytes || *n_bytes > kMaxI64) {
    return {"size_overflow",
            "has shape " + shape_string(shape) + ", more than 2^63-1 bytes of " + traits.name};
  }
  size->n_elements = n_elements;
  size->n_bytes = *n_bytes;
  return {};
}

bool is_valid_alignment(std::uint32_t alignment) {
  return std::has_single_bit(alignment) && alignment >= 8 && alignment <= kMaxAlignment;
}

std::string hex(std::uint64_t value) {
  char text[20];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string shape_string(std::span<const std::uint64_t> shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) out += ", ";
    out += std::to_string(shape[i]);
  }
  return out + "]";
}

}  // namespace specdec::gguf_rules
