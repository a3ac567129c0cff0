#include "gguf/parser.h"

#include <algorithm>
#include <bit>
#include <random>
#include <utility>

#include "base/checked.h"
#include "base/error.h"

namespace specdec {

using gguf_rules::hex;

static_assert(std::endian::native == std::endian::little, "GGUF values are loaded as they are");

std::uint64_t name_hash_seed() {
  static const std::uint64_t seed = [] {
    std::uint64_t value = reinterpret_cast<std::uintptr_t>(&seed);
    try {
      std::random_device device;
      value ^= (static_cast<std::uint64_t>(device()) << 32) | device();
    } catch (const std::exception&) {
      // No entropy source: the address of a variable must do.
    }
    return value;
  }();
  return seed;
}

std::string GgufParser::subject() const {
  if (!tensor_.empty()) return "tensor '" + printable(tensor_) + "' ";
  if (!key_.empty()) return "metadata key '" + printable(key_) + "' ";
  return "";
}

void GgufParser::fail(const char* reason, std::uint64_t at, const std::string& text) const {
  throw file_.make_error(ErrorCode::kModelFormat, reason, subject() + text, key_, tensor_, at);
}

void GgufParser::unsupported(const char* reason, std::uint64_t at, const std::string& text) const {
  throw file_.make_error(ErrorCode::kUnsupported, reason, subject() + text, key_, tensor_, at);
}

void GgufParser::fail_truncated(const char* what) const {
  const std::string where = subject().empty() ? "" : "is incomplete: ";
  fail("truncated", cursor_.position(),
       where + "file ends at " + hex(file_.file_size()) + " within " + what + " at " +
           hex(cursor_.position()) + " (truncated?)");
}

template <typename T>
T GgufParser::read(const char* what) {
  T value;
  if (!cursor_.read(&value)) fail_truncated(what);
  return value;
}

void GgufParser::parse() {
  parse_header();
  parse_key_values();
  check_general_keys();
  parse_tensors();
  place_tensors();
}

void GgufParser::check_magic() {
  const auto* text = reinterpret_cast<const char*>(file_.bytes_.data());
  const std::string_view start(text, std::min<std::uint64_t>(file_.file_size(), 32));
  const std::string_view magic = start.substr(0, 4);
  if (magic == "GGUF") return;
  if (std::string_view("GGUF").starts_with(magic)) fail_truncated("the magic bytes");
  const char* hint = "not a GGUF file";
  if (magic == "lmgg" || magic == "tjgg" || magic == "fmgg" || magic == "algg") {
    hint = "a GGML file from before GGUF; convert the original model again";
  } else if (start.starts_with("version https://git-lfs")) {
    hint = "a Git LFS pointer, the model itself was not downloaded";
  } else if (start.starts_with("PK")) {
    hint = "a PyTorch checkpoint or another zip file; convert it to GGUF first";
  } else if (start.starts_with("<")) {
    hint = "a web page, the download failed";
  } else if (start.size() > 9 && start[8] == '{') {
    hint = "a safetensors file; convert it to GGUF first";
  }
  fail("bad_magic", 0, "starts with '" + printable(magic) + "', expected 'GGUF': " + hint);
}

void GgufParser::parse_header() {
  check_magic();
  if (!cursor_.skip(4)) fail_truncated("the magic bytes");
  const auto version = read<std::uint32_t>("the version");
  if (version != 0 && (version & 0xFFFFU) == 0 && __builtin_bswap32(version) <= 3) {
    unsupported("big_endian", 4, "is a big-endian GGUF file; convert it to little-endian");
  }
  if (version != 2 && version != 3) {
    fail("bad_version", 4,
         "has GGUF version " + std::to_string(version) + ", versions 2 and 3 can be read");
  }
  file_.version_ = version;
  n_tensors_ = read<std::uint64_t>("the number of tensors");
  n_keys_ = read<std::uint64_t>("the number of metadata keys");
  const std::uint64_t remaining = cursor_.remaining();
  if (n_keys_ > remaining / gguf_rules::kMinKeyValueBytes) {
    fail("count_exceeds_file", 16,
         "claims " + std::to_string(n_keys_) + " metadata keys, but only " +
             std::to_string(remaining) + " bytes follow");
  }
  if (n_tensors_ > remaining / gguf_rules::kMinTensorBytes) {
    fail("count_exceeds_file", 8,
         "claims " + std::to_string(n_tensors_) + " tensors, but only " +
             std::to_string(remaining) + " bytes follow");
  }
  if (n_keys_ > limits_.max_keys) {
    fail("limit", 16,
         "has " + std::to_string(n_keys_) + " metadata keys, the limit is " +
             std::to_string(limits_.max_keys));
  }
  if (n_tensors_ > limits_.max_tensors) {
    fail("limit", 8,
         "has " + std::to_string(n_tensors_) + " tensors, the limit is " +
             std::to_string(limits_.max_tensors));
  }
}

std::uint64_t GgufParser::parse_string_length(const char* what, bool in_array) {
  const std::uint64_t at = cursor_.position();
  const auto length = read<std::uint64_t>(what);
  if (length > cursor_.remaining()) {
    fail(in_array ? "truncated" : "string_exceeds_file", at,
         std::string(what) + " claims " + std::to_string(length) + " bytes, but only " +
             std::to_string(cursor_.remaining()) + " follow");
  }
  if (length > limits_.max_string_bytes) {
    fail("limit", at,
         std::string(what) + " is " + std::to_string(length) + " bytes long, the limit is " +
             std::to_string(limits_.max_string_bytes));
  }
  return length;
}

std::string_view GgufParser::parse_name(const char* what) {
  const std::uint64_t length = parse_string_length(what, false);
  const std::string_view name(reinterpret_cast<const char*>(cursor_.data()), length);
  if (!cursor_.skip(length)) fail_truncated(what);
  return name;
}

GgufType GgufParser::checked_type(std::uint32_t id, std::uint64_t at) {
  if (id > static_cast<std::uint32_t>(GgufType::kF64)) {
    fail("bad_type", at, "has value type " + std::to_string(id) + ", GGUF knows 0 to 12");
  }
  return static_cast<GgufType>(id);
}

void GgufParser::parse_key_values() {
  auto& entries = file_.entries_;
  entries.reserve(n_keys_);
  file_.key_index_.reset(n_keys_);
  const auto name_of = [&](std::uint32_t i) { return entries[i].key; };
  for (std::uint64_t i = 0; i < n_keys_; ++i) {
    key_ = {};
    const std::uint64_t at = cursor_.position();
    const std::string_view key = parse_name("the name of a metadata key");
    if (const auto problem = gguf_rules::check_key(key)) {
      throw file_.make_error(ErrorCode::kModelFormat, problem.reason, problem.text, key, {}, at);
    }
    key_ = key;
    const std::uint64_t type_at = cursor_.position();
    const GgufType type = checked_type(read<std::uint32_t>("the type of a value"), type_at);
    entries.push_back({key, parse_value(type)});
    if (file_.key_index_.insert(static_cast<std::uint32_t>(i), name_of)) {
      fail("duplicate_key", at, "appears twice");
    }
  }
  key_ = {};
}

GgufValue GgufParser::parse_value(GgufType type) {
  if (type == GgufType::kArray) return parse_array();
  if (type == GgufType::kString) {
    const std::uint64_t length = parse_string_length("a string value", false);
    const GgufValue value(type, type, cursor_.data(), length, length);
    if (!cursor_.skip(length)) fail_truncated("a string value");
    return value;
  }
  const std::uint32_t n_bytes = gguf_value_type_bytes(type);
  const std::byte* data = cursor_.data();
  const std::uint64_t at = cursor_.position();
  if (!cursor_.skip(n_bytes)) fail_truncated("a value");
  if (type == GgufType::kBool && load_le<std::uint8_t>(data) > 1) {
    fail("bad_bool", at,
         "is a bool with value " + std::to_string(load_le<std::uint8_t>(data)) +
             ", expected 0 or 1");
  }
  return {type, type, data, 1, n_bytes};
}

GgufValue GgufParser::parse_array() {
  const std::uint64_t type_at = cursor_.position();
  const GgufType type = checked_type(read<std::uint32_t>("the element type of an array"), type_at);
  if (type == GgufType::kArray) unsupported("nested_array", type_at, "is an array of arrays");
  const std::uint64_t count_at = cursor_.position();
  const auto count = read<std::uint64_t>("the length of an array");
  const bool is_string = type == GgufType::kString;
  const std::uint64_t element_bytes = is_string ? 8 : gguf_value_type_bytes(type);
  if (count > cursor_.remaining() / element_bytes) {
    fail("count_exceeds_file", count_at,
         "claims " + std::to_string(count) + " elements, but only " +
             std::to_string(cursor_.remaining()) + " bytes follow");
  }
  if (count > limits_.max_array_elements) {
    fail("limit", count_at,
         "has " + std::to_string(count) + " elements, the limit is " +
             std::to_string(limits_.max_array_elements));
  }
  const std::byte* data = cursor_.data();
  const std::uint64_t start = cursor_.position();
  if (is_string) {
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t length = parse_string_length("a string of an array", true);
      if (!cursor_.skip(length)) fail_truncated("a string of an array");
    }
  } else {
    // Cannot overflow: count was compared with the bytes that remain.
    if (!cursor_.skip(count * element_bytes)) fail_truncated("an array");
    for (std::uint64_t i = 0; type == GgufType::kBool && i < count; ++i) {
      if (load_le<std::uint8_t>(data + i) > 1) {
        fail("bad_bool", start + i,
             "holds a bool that is neither 0 nor 1 at index " + std::to_string(i));
      }
    }
  }
  return {GgufType::kArray, type, data, count, cursor_.position() - start};
}

void GgufParser::check_general_keys() {
  if (const GgufValue* value = file_.find("general.alignment")) {
    key_ = "general.alignment";
    const auto at = static_cast<std::uint64_t>(value->data() - file_.bytes_.data());
    if (value->type() != GgufType::kU32) {
      fail("wrong_type", at, "is " + value->type_name() + ", expected u32");
    }
    const auto alignment = static_cast<std::uint32_t>(value->as_u64());
    if (!gguf_rules::is_valid_alignment(alignment)) {
      const std::string text =
          "is " + std::to_string(alignment) + ", expected a power of two from 8 to 65536";
      const bool legal =
          alignment > 8 && alignment % 8 == 0 && alignment <= gguf_rules::kMaxAlignment;
      if (legal) unsupported("bad_alignment", at, text);
      fail("bad_alignment", at, text);
    }
    file_.alignment_ = alignment;
    key_ = {};
  }
}

void GgufParser::parse_tensors() {
  auto& tensors = file_.tensors_;
  tensors.reserve(n_tensors_);
  file_.tensor_index_.reset(n_tensors_);
  const auto name_of = [&](std::uint32_t i) { return std::string_view(tensors[i].name); };
  for (std::uint64_t i = 0; i < n_tensors_; ++i) {
    tensor_ = {};
    const std::uint64_t at = cursor_.position();
    const std::string_view name = parse_name("the name of a tensor");
    if (const auto problem = gguf_rules::check_tensor_name(name)) {
      throw file_.make_error(ErrorCode::kModelFormat, problem.reason, problem.text, {}, name, at);
    }
    tensor_ = name;
    TensorInfo info;
    info.name = name;
    parse_tensor(&info);
    tensors.push_back(std::move(info));
    if (file_.tensor_index_.insert(static_cast<std::uint32_t>(i), name_of)) {
      fail("duplicate_tensor", at, "appears twice");
    }
  }
  tensor_ = {};
}

void GgufParser::parse_tensor(TensorInfo* info) {
  const std::uint64_t dims_at = cursor_.position();
  const auto n_dims = read<std::uint32_t>("the number of dimensions");
  if (n_dims < 1 || n_dims > gguf_rules::kMaxDims) {
    fail("bad_ndims", dims_at, "has " + std::to_string(n_dims) + " dimensions, expected 1 to 4");
  }
  for (std::uint32_t d = 0; d < n_dims; ++d)
    info->shape.push_back(read<std::uint64_t>("a dimension"));
  const std::uint64_t type_at = cursor_.position();
  info->type_id = read<std::uint32_t>("the type of a tensor");
  const DTypeTraits* traits = find_dtype(info->type_id);
  if (info->type_id == static_cast<std::uint32_t>(kIdType)) traits = &dtype_traits(kIdType);
  if (traits == nullptr) {
    const std::string type_name = gguf_type_name(info->type_id);
    if (type_name.empty()) {
      fail("bad_type", type_at, "has the unknown type " + std::to_string(info->type_id));
    }
    std::string text = "has type " + type_name + ", supported are";
    for (const auto& known : all_dtypes()) text.append(" ").append(known.name);
    unsupported("tensor_type", type_at, text);
  }
  info->dtype = traits->dtype;
  gguf_rules::TensorSize size;
  if (const auto problem = gguf_rules::check_shape(info->shape, info->dtype, &size)) {
    fail(problem.reason, dims_at, problem.text);
  }
  info->n_elements = size.n_elements;
  info->n_bytes = size.n_bytes;
  info->offset = read<std::uint64_t>("the offset of a tensor");  // relative until place_tensors()
}

void GgufParser::place_tensors() {
  const std::uint64_t file_size = file_.file_size();
  const std::uint64_t alignment = file_.alignment_;
  // Positions in a file are below 2^63, so this cannot overflow.
  file_.data_start_ = *checked_align(cursor_.position(), alignment);
  if (file_.tensors_.empty()) {
    // Vocabulary files may end without padding.
    file_.data_start_ = std::min(file_.data_start_, file_size);
  } else if (file_.data_start_ > file_size) {
    fail("truncated", file_size,
         "file ends at " + hex(file_size) + ", before the tensor data at " +
             hex(file_.data_start_) + " (truncated?)");
  }
  const std::uint64_t n_data = file_size - file_.data_start_;
  std::uint64_t expected = 0;  // relative to data_start_
  for (auto& info : file_.tensors_) {
    tensor_ = info.name;
    if (info.offset % alignment != 0) {
      fail("bad_offset", file_.data_start_,
           "has offset " + hex(info.offset) + ", not a multiple of the alignment " +
               std::to_string(alignment));
    }
    if (info.offset != expected) {
      fail("bad_offset", file_.data_start_,
           "has offset " + hex(info.offset) + ", expected " + hex(expected) +
               ": tensors must follow each other without gap or overlap");
    }
    if (info.offset > n_data || info.n_bytes > n_data - info.offset) {
      const auto start = checked_add(file_.data_start_, info.offset);
      fail("exceeds_file", start.value_or(file_size),
           "at offset " + hex(start.value_or(file_size)) + " needs " +
               std::to_string(info.n_bytes) + " bytes, file ends at " + hex(file_size) +
               " (truncated?)");
    }
    // Both at most the file size, so neither sum can overflow.
    expected = *checked_align(info.offset + info.n_bytes, alignment);
    info.offset += file_.data_start_;
  }
  tensor_ = {};
  if (n_data > expected) {
    file_.warnings_.push_back("trailing_bytes: " + std::to_string(n_data - expected) +
                              " bytes follow the last tensor");
  }
}

}  // namespace specdec
