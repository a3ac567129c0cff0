#include "gguf/writer.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "gguf/atomic_file.h"
#include "gguf/reader.h"
#include "gguf/rules.h"

namespace specdec {

namespace {

constexpr std::string_view kAlignmentKey = "general.alignment";

[[noreturn]] void refuse(const char* reason, const std::string& text, std::string_view key,
                         std::string_view tensor) {
  ErrorDetail detail;
  detail.reason = reason;
  detail.key = key;
  detail.tensor = tensor;
  throw Error(ErrorCode::kInvalidArgument, "cannot write GGUF: " + text, std::move(detail));
}

template <typename T>
constexpr GgufType type_of() {
  if constexpr (std::is_same_v<T, std::uint8_t>) return GgufType::kU8;
  if constexpr (std::is_same_v<T, std::int8_t>) return GgufType::kI8;
  if constexpr (std::is_same_v<T, std::uint16_t>) return GgufType::kU16;
  if constexpr (std::is_same_v<T, std::int16_t>) return GgufType::kI16;
  if constexpr (std::is_same_v<T, std::uint32_t>) return GgufType::kU32;
  if constexpr (std::is_same_v<T, std::int32_t>) return GgufType::kI32;
  if constexpr (std::is_same_v<T, std::uint64_t>) return GgufType::kU64;
  if constexpr (std::is_same_v<T, std::int64_t>) return GgufType::kI64;
  if constexpr (std::is_same_v<T, float>) return GgufType::kF32;
  return GgufType::kF64;
}

}  // namespace

GgufWriter::GgufWriter(std::uint32_t alignment) : alignment_(alignment) {
  if (!gguf_rules::is_valid_alignment(alignment)) {
    refuse("bad_alignment",
           "alignment " + std::to_string(alignment) + " is not a power of two from 8 to 65536", {},
           {});
  }
  if (alignment != gguf_rules::kDefaultAlignment) {
    append_key(kAlignmentKey, GgufType::kU32);
    append_number(alignment);
  }
}

void GgufWriter::append(const void* data, std::size_t n_bytes) {
  metadata_.append(static_cast<const char*>(data), n_bytes);
}

void GgufWriter::append_string(std::string_view text) {
  append_number(static_cast<std::uint64_t>(text.size()));
  metadata_ += text;
}

void GgufWriter::begin_key(std::string_view key, GgufType type) {
  if (const auto problem = gguf_rules::check_key(key))
    refuse(problem.reason, problem.text, key, {});
  if (key == kAlignmentKey) {
    refuse("bad_alignment",
           "'general.alignment' follows from the writer's alignment, " + std::to_string(alignment_),
           key, {});
  }
  if (!keys_.emplace(key).second) {
    refuse("duplicate_key", "metadata key '" + printable(key) + "' was added twice", key, {});
  }
  append_key(key, type);
}

void GgufWriter::append_key(std::string_view key, GgufType type) {
  ++n_keys_;
  append_string(key);
  append_number(static_cast<std::uint32_t>(type));
}

void GgufWriter::begin_array(std::string_view key, GgufType element_type, std::uint64_t count) {
  begin_key(key, GgufType::kArray);
  append_number(static_cast<std::uint32_t>(element_type));
  append_number(count);
}

template <typename T>
void GgufWriter::add_number(std::string_view key, GgufType type, T value) {
  begin_key(key, type);
  append_number(value);
}

void GgufWriter::add_u8(std::string_view key, std::uint8_t value) {
  add_number(key, GgufType::kU8, value);
}
void GgufWriter::add_i8(std::string_view key, std::int8_t value) {
  add_number(key, GgufType::kI8, value);
}
void GgufWriter::add_u16(std::string_view key, std::uint16_t value) {
  add_number(key, GgufType::kU16, value);
}
void GgufWriter::add_i16(std::string_view key, std::int16_t value) {
  add_number(key, GgufType::kI16, value);
}
void GgufWriter::add_u32(std::string_view key, std::uint32_t value) {
  add_number(key, GgufType::kU32, value);
}
void GgufWriter::add_i32(std::string_view key, std::int32_t value) {
  add_number(key, GgufType::kI32, value);
}
void GgufWriter::add_u64(std::string_view key, std::uint64_t value) {
  add_number(key, GgufType::kU64, value);
}
void GgufWriter::add_i64(std::string_view key, std::int64_t value) {
  add_number(key, GgufType::kI64, value);
}
void GgufWriter::add_f32(std::string_view key, float value) {
  add_number(key, GgufType::kF32, value);
}
void GgufWriter::add_f64(std::string_view key, double value) {
  add_number(key, GgufType::kF64, value);
}

void GgufWriter::add_bool(std::string_view key, bool value) {
  add_number(key, GgufType::kBool, static_cast<std::uint8_t>(value));
}

void GgufWriter::add_string(std::string_view key, std::string_view value) {
  begin_key(key, GgufType::kString);
  append_string(value);
}

template <typename T>
void GgufWriter::add_array(std::string_view key, std::span<const T> values) {
  begin_array(key, type_of<T>(), values.size());
  append(values.data(), values.size_bytes());
}

template void GgufWriter::add_array(std::string_view, std::span<const std::uint8_t>);
template void GgufWriter::add_array(std::string_view, std::span<const std::int8_t>);
template void GgufWriter::add_array(std::string_view, std::span<const std::uint16_t>);
template void GgufWriter::add_array(std::string_view, std::span<const std::int16_t>);
template void GgufWriter::add_array(std::string_view, std::span<const std::uint32_t>);
template void GgufWriter::add_array(std::string_view, std::span<const std::int32_t>);
template void GgufWriter::add_array(std::string_view, std::span<const std::uint64_t>);
template void GgufWriter::add_array(std::string_view, std::span<const std::int64_t>);
template void GgufWriter::add_array(std::string_view, std::span<const float>);
template void GgufWriter::add_array(std::string_view, std::span<const double>);

void GgufWriter::add_bool_array(std::string_view key, const std::vector<bool>& values) {
  begin_array(key, GgufType::kBool, values.size());
  for (const bool value : values) append_number(static_cast<std::uint8_t>(value));
}

void GgufWriter::add_string_array(std::string_view key, std::span<const std::string_view> values) {
  begin_array(key, GgufType::kString, values.size());
  for (const std::string_view value : values) append_string(value);
}

void GgufWriter::add_string_array(std::string_view key, std::span<const std::string> values) {
  begin_array(key, GgufType::kString, values.size());
  for (const std::string& value : values) append_string(value);
}

void GgufWriter::add_value(std::string_view key, const GgufValue& value) {
  if (key == kAlignmentKey && value.type() == GgufType::kU32 && value.as_u64() == alignment_)
    return;
  if (value.is_array()) {
    begin_array(key, value.element_type(), value.count());
  } else {
    begin_key(key, value.type());
    if (value.type() == GgufType::kString) append_number(value.n_bytes());
  }
  append(value.data(), value.n_bytes());
}

GgufWriter::Tensor& GgufWriter::push_tensor(std::string_view name, DType dtype,
                                            std::span<const std::uint64_t> shape) {
  if (const auto problem = gguf_rules::check_tensor_name(name))
    refuse(problem.reason, problem.text, {}, name);
  gguf_rules::TensorSize size;
  if (const auto problem = gguf_rules::check_shape(shape, dtype, &size)) {
    refuse(problem.reason, "tensor '" + printable(name) + "' " + problem.text, {}, name);
  }
  if (!tensor_names_.emplace(name).second) {
    refuse("duplicate_tensor", "tensor '" + printable(name) + "' was added twice", {}, name);
  }
  tensors_.push_back(
      {std::string(name), dtype, {shape.begin(), shape.end()}, size.n_bytes, {}, {}});
  return tensors_.back();
}

void GgufWriter::add_tensor(std::string_view name, DType dtype,
                            std::span<const std::uint64_t> shape, std::span<const std::byte> data) {
  gguf_rules::TensorSize size;
  const auto problem = gguf_rules::check_shape(shape, dtype, &size);
  if (!problem && size.n_bytes != data.size()) {
    refuse("bad_size",
           "tensor '" + printable(name) + "' needs " + std::to_string(size.n_bytes) +
               " bytes, got " + std::to_string(data.size()),
           {}, name);
  }
  push_tensor(name, dtype, shape).data = data;
}

void GgufWriter::add_tensor(std::string_view name, DType dtype,
                            std::span<const std::uint64_t> shape, Producer producer) {
  if (!producer) refuse("bad_size", "tensor '" + printable(name) + "' has no data", {}, name);
  push_tensor(name, dtype, shape).producer = std::move(producer);
}

std::string GgufWriter::header() const {
  std::string out = "GGUF";
  const auto number = [&](auto value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  number(std::uint32_t{3});
  number(static_cast<std::uint64_t>(tensors_.size()));
  number(n_keys_);
  out += metadata_;
  std::uint64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    number(static_cast<std::uint64_t>(tensor.name.size()));
    out += tensor.name;
    number(static_cast<std::uint32_t>(tensor.shape.size()));
    for (const std::uint64_t n : tensor.shape) number(n);
    number(static_cast<std::uint32_t>(tensor.dtype));
    number(offset);
    const auto end = checked_add(offset, tensor.n_bytes);
    const auto next = end ? checked_align(*end, alignment_) : std::nullopt;
    if (!next) refuse("size_overflow", "the tensors are larger than 2^64 bytes", {}, tensor.name);
    offset = *next;
  }
  return out;
}

std::uint64_t GgufWriter::size() const {
  // header() has refused sums that overflow.
  const auto aligned = [this](std::uint64_t n) { return checked_align(n, alignment_).value_or(n); };
  std::uint64_t total = aligned(header().size());
  for (const Tensor& tensor : tensors_) total += aligned(tensor.n_bytes);
  return total;
}

void GgufWriter::write_to(AtomicFile& file) const {
  const std::string head = header();
  file.write(head.data(), head.size());
  file.pad_to(alignment_);
  for (const Tensor& tensor : tensors_) {
    const std::uint64_t start = file.size();
    if (tensor.producer) {
      tensor.producer([&](std::span<const std::byte> piece) {
        if (piece.size() > tensor.n_bytes - (file.size() - start)) {
          refuse("bad_size",
                 "the data of tensor '" + printable(tensor.name) + "' is longer than its shape", {},
                 tensor.name);
        }
        file.write(piece.data(), piece.size());
      });
    } else {
      file.write(tensor.data.data(), tensor.data.size());
    }
    if (file.size() - start != tensor.n_bytes) {
      refuse("bad_size",
             "tensor '" + printable(tensor.name) + "' needs " + std::to_string(tensor.n_bytes) +
                 " bytes, got " + std::to_string(file.size() - start),
             {}, tensor.name);
    }
    file.pad_to(alignment_);
  }
  // Whatever rule was missed above, a file that cannot be read back is never left behind.
  GgufFile::open_part(file.readable());
  file.finish();
}

std::uint64_t GgufWriter::write(const std::string& path) const {
  return write_parts({this, 1}, {&path, 1});
}

std::uint64_t GgufWriter::write_parts(std::span<const GgufWriter> parts,
                                      std::span<const std::string> paths) {
  SPECDEC_CHECK(!parts.empty() && parts.size() == paths.size());
  std::vector<std::unique_ptr<AtomicFile>> files;
  std::uint64_t n_bytes = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    files.push_back(std::make_unique<AtomicFile>(paths[i]));
    parts[i].write_to(*files.back());
    n_bytes += files.back()->size();
  }
  if (files.size() > 1) ::unlink(paths[0].c_str());
  for (std::size_t i = files.size(); i-- > 0;) files[i]->commit();
  return n_bytes;
}

}  // namespace specdec
