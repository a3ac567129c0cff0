#include "gguf/value.h"

#include <cmath>
#include <cstdio>
#include <limits>

namespace specdec {
namespace {

[[noreturn]] void throw_value(const char* reason, const std::string& text) {
  ErrorDetail detail;
  detail.reason = reason;
  throw Error(ErrorCode::kModelFormat, text, std::move(detail));
}

[[noreturn]] void throw_wrong_type(const GgufValue& value, const char* expected) {
  throw_value("wrong_type", "is " + value.type_name() + ", expected " + expected);
}

double load_float(GgufType type, const std::byte* data) {
  return type == GgufType::kF64 ? load_le<double>(data) : load_le<float>(data);
}

bool is_float(GgufType type) { return type == GgufType::kF32 || type == GgufType::kF64; }

// Beyond float's range becomes infinity, which whoever checks the value refuses.
float narrow(double value) {
  if (std::fabs(value) > std::numeric_limits<float>::max()) {
    return std::copysign(std::numeric_limits<float>::infinity(),
                         static_cast<float>(std::copysign(1.0, value)));
  }
  return static_cast<float>(value);
}

// The integer as sign and 64 bits.
struct Integer {
  bool negative;
  std::uint64_t bits;
};

Integer load_integer(GgufType type, const std::byte* data) {
  const auto from_signed = [](std::int64_t v) {
    return Integer{v < 0, static_cast<std::uint64_t>(v)};
  };
  switch (type) {
    case GgufType::kU8:
      return {false, load_le<std::uint8_t>(data)};
    case GgufType::kI8:
      return from_signed(load_le<std::int8_t>(data));
    case GgufType::kU16:
      return {false, load_le<std::uint16_t>(data)};
    case GgufType::kI16:
      return from_signed(load_le<std::int16_t>(data));
    case GgufType::kU32:
      return {false, load_le<std::uint32_t>(data)};
    case GgufType::kI32:
      return from_signed(load_le<std::int32_t>(data));
    case GgufType::kI64:
      return from_signed(load_le<std::int64_t>(data));
    default:
      return {false, load_le<std::uint64_t>(data)};
  }
}

std::uint64_t non_negative(GgufType type, const std::byte* data) {
  const Integer value = load_integer(type, data);
  if (value.negative) {
    throw_value("bad_value", "is " + std::to_string(static_cast<std::int64_t>(value.bits)) +
                                 ", expected a count of 0 or more");
  }
  return value.bits;
}

std::string number_string(GgufType type, const std::byte* data) {
  if (type == GgufType::kBool) return load_le<std::uint8_t>(data) != 0 ? "true" : "false";
  if (is_float(type)) {
    char text[40];
    std::snprintf(text, sizeof text, "%.*g", type == GgufType::kF64 ? 17 : 9,
                  load_float(type, data));
    return text;
  }
  const Integer value = load_integer(type, data);
  return value.negative ? std::to_string(static_cast<std::int64_t>(value.bits))
                        : std::to_string(value.bits);
}

// The string at `at` of a checked array; false at its end. Checks again, for the case that another
// process changes a mapped file after it was parsed.
bool next_string(const std::byte* data, std::uint64_t n_bytes, std::uint64_t* at,
                 std::string_view* out) {
  if (n_bytes - *at < 8) return false;
  const auto length = load_le<std::uint64_t>(data + *at);
  if (length > n_bytes - *at - 8) return false;
  *out = {reinterpret_cast<const char*>(data) + *at + 8, static_cast<std::size_t>(length)};
  *at += 8 + length;
  return true;
}

std::string quoted(std::string_view text, std::size_t max_bytes) {
  std::string out(1, '"');
  out += printable(text, max_bytes);
  return out += '"';
}

}  // namespace

const char* gguf_value_type_name(GgufType type) {
  constexpr const char* kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                    "bool", "string", "array", "u64", "i64", "f64"};
  return static_cast<std::uint32_t>(type) < std::size(kNames)
             ? kNames[static_cast<std::uint32_t>(type)]
             : "?";
}

std::uint32_t gguf_value_type_bytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    default:
      return 0;
  }
}

bool is_gguf_integer(GgufType type) {
  return gguf_value_type_bytes(type) != 0 && !is_float(type) && type != GgufType::kBool;
}

std::string GgufValue::type_name() const {
  if (!is_array()) return gguf_value_type_name(type_);
  return std::string("array of ") + gguf_value_type_name(element_type_);
}

std::uint64_t GgufValue::as_u64() const {
  if (!is_gguf_integer(type_)) throw_wrong_type(*this, "an integer");
  return non_negative(type_, data_);
}

std::int64_t GgufValue::as_i64() const {
  if (!is_gguf_integer(type_)) throw_wrong_type(*this, "an integer");
  const Integer value = load_integer(type_, data_);
  if (!value.negative &&
      value.bits > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    throw_value("bad_value", "is " + std::to_string(value.bits) + ", expected at most 2^63-1");
  }
  return static_cast<std::int64_t>(value.bits);
}

float GgufValue::as_f32() const { return narrow(as_f64()); }

double GgufValue::as_f64() const {
  if (!is_float(type_)) throw_wrong_type(*this, "f32 or f64");
  return load_float(type_, data_);
}

bool GgufValue::as_bool() const {
  if (type_ != GgufType::kBool) throw_wrong_type(*this, "bool");
  return load_le<std::uint8_t>(data_) != 0;
}

std::string_view GgufValue::as_string() const {
  if (type_ != GgufType::kString) throw_wrong_type(*this, "string");
  return {reinterpret_cast<const char*>(data_), static_cast<std::size_t>(n_bytes_)};
}

std::vector<float> GgufValue::as_f32_array() const {
  if (!is_array() || !is_float(element_type_)) throw_wrong_type(*this, "array of f32");
  std::vector<float> out(count_);
  const std::uint32_t stride = gguf_value_type_bytes(element_type_);
  for (std::uint64_t i = 0; i < count_; ++i)
    out[i] = narrow(load_float(element_type_, data_ + i * stride));
  return out;
}

std::vector<std::int32_t> GgufValue::as_i32_array() const {
  if (!is_array() || (element_type_ != GgufType::kI32 && element_type_ != GgufType::kU32)) {
    throw_wrong_type(*this, "array of i32");
  }
  std::vector<std::int32_t> out(count_);
  for (std::uint64_t i = 0; i < count_; ++i) {
    out[i] = load_le<std::int32_t>(data_ + i * 4);
    if (element_type_ == GgufType::kU32 && out[i] < 0) {
      throw_value("bad_value", "has " + std::to_string(static_cast<std::uint32_t>(out[i])) +
                                   " at index " + std::to_string(i) + ", expected at most 2^31-1");
    }
  }
  return out;
}

std::vector<std::uint64_t> GgufValue::as_u64_array() const {
  if (!is_array() || !is_gguf_integer(element_type_)) throw_wrong_type(*this, "array of integers");
  std::vector<std::uint64_t> out(count_);
  const std::uint32_t stride = gguf_value_type_bytes(element_type_);
  for (std::uint64_t i = 0; i < count_; ++i)
    out[i] = non_negative(element_type_, data_ + i * stride);
  return out;
}

std::vector<bool> GgufValue::as_bool_array() const {
  if (!is_array() || element_type_ != GgufType::kBool) throw_wrong_type(*this, "array of bool");
  std::vector<bool> out(count_);
  for (std::uint64_t i = 0; i < count_; ++i) out[i] = load_le<std::uint8_t>(data_ + i) != 0;
  return out;
}

std::vector<std::string_view> GgufValue::as_string_array() const {
  if (!is_array() || element_type_ != GgufType::kString) throw_wrong_type(*this, "array of string");
  std::vector<std::string_view> out(count_);
  std::uint64_t at = 0;
  for (auto& text : out) {
    if (!next_string(data_, n_bytes_, &at, &text)) {
      throw_value("changed", "changed while the file was in use");
    }
  }
  return out;
}

std::string GgufValue::to_display_string(std::size_t max_bytes) const {
  if (type_ == GgufType::kString) return quoted(as_string(), max_bytes);
  if (!is_array()) return number_string(type_, data_);
  std::string out = "[";
  std::uint64_t at = 0;
  for (std::uint64_t i = 0; i < count_; ++i) {
    if (i > 0) out += ", ";
    if (out.size() >= max_bytes) {
      out += "...";
      break;
    }
    if (element_type_ == GgufType::kString) {
      std::string_view text;
      if (!next_string(data_, n_bytes_, &at, &text)) break;
      out += quoted(text, max_bytes - out.size());
    } else {
      out += number_string(element_type_, data_ + i * gguf_value_type_bytes(element_type_));
    }
  }
  return out + "] (" + type_name() + ", " + std::to_string(count_) + ")";
}

}  // namespace specdec
