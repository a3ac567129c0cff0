#include "gguf/reader.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/hash.h"
#include "gguf/parser.h"

namespace specdec {

std::shared_ptr<const GgufFile> GgufFile::open(const std::string& path, const GgufLimits& limits) {
  std::shared_ptr<GgufFile> file = open_one(path, limits);
  file->open_parts(limits);
  return file;
}

std::shared_ptr<GgufFile> GgufFile::open_one(const std::string& path, const GgufLimits& limits) {
  std::shared_ptr<GgufFile> file(new GgufFile);
  file->path_ = path;
  file->mapping_.emplace(path);
  file->bytes_ = file->mapping_->bytes();
  try {
    GgufParser(file.get(), limits).parse();
  } catch (const Error&) {
    file->check_whole();  // if it was cut off meanwhile, that is what to say
    throw;
  }
  file->check_whole();
  return file;
}

void GgufFile::check_whole() const {
  if (mapping_) mapping_->check_whole();
  for (const auto& other : others_) other->check_whole();
}

std::uint64_t GgufFile::stamp() const {
  if (!mapping_) return 0;
  Hash64 hash;
  const auto add = [&hash](const GgufFile& file) {
    hash.add_number(file.bytes_.size());
    hash.add_number(file.mapping_->modified_ns());
    hash.add(file.bytes_.first(std::min<std::size_t>(file.data_start_, file.bytes_.size())));
    // Two trainings of one model have the same header, and time where a store sets it to nothing.
    constexpr std::size_t kSamples = 16;
    constexpr std::size_t kSampleBytes = 64;
    const std::size_t n_bytes = file.bytes_.size();
    if (n_bytes < file.data_start_ + kSampleBytes) return;
    const std::size_t n_data = n_bytes - static_cast<std::size_t>(file.data_start_) - kSampleBytes;
    for (std::size_t i = 1; i <= kSamples; ++i) {
      const std::size_t at = static_cast<std::size_t>(file.data_start_) + n_data / kSamples * i;
      hash.add(file.bytes_.subspan(at, kSampleBytes));
    }
  };
  add(*this);
  for (const auto& other : others_) add(*other);
  return std::max<std::uint64_t>(hash.value(), 1);
}

std::shared_ptr<const GgufFile> GgufFile::parse(std::span<const std::byte> bytes,
                                                const std::string& path_for_messages,
                                                const GgufLimits& limits) {
  const std::shared_ptr<GgufFile> file(new GgufFile);
  file->path_ = path_for_messages;
  file->bytes_ = bytes;
  GgufParser(file.get(), limits).parse();
  if (file->get_u64("split.count", 0) > 1) {
    (void)file->require_u64("split.no");  // as where the others can be found
    throw file->make_error(ErrorCode::kUnsupported, "split_file",
                           "is one part of a split model, whose other parts are found by its path",
                           "split.count");
  }
  return file;
}

Error GgufFile::make_error(ErrorCode code, std::string reason, const std::string& text,
                           std::string_view key, std::string_view tensor,
                           std::optional<std::uint64_t> offset) const {
  ErrorDetail detail;
  detail.reason = std::move(reason);
  const TensorInfo* info = others_.empty() ? nullptr : find_tensor(tensor);
  const std::string& path = info == nullptr ? path_ : part(info->part).path();
  detail.path = path;
  detail.key = key.substr(0, gguf_rules::kMaxKeyBytes);
  detail.tensor = tensor.substr(0, gguf_rules::kMaxKeyBytes);
  detail.offset = offset;
  return {code, printable(path, 512) + ": " + text, std::move(detail)};
}

const GgufValue* GgufFile::find(std::string_view key) const noexcept {
  const auto position = key_index_.find(key, [&](std::uint32_t i) { return entries_[i].key; });
  return position ? &entries_[*position].value : nullptr;
}

const GgufValue& GgufFile::require(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) {
    throw make_error(ErrorCode::kModelFormat, "missing_key",
                     "metadata key '" + printable(key) + "' is missing", key);
  }
  return *value;
}

// Runs a getter of `value`, putting path and key in front of what it throws.
template <typename Function>
auto GgufFile::with_key(std::string_view key, const GgufValue& value, Function function) const {
  try {
    return function(value);
  } catch (const Error& error) {
    throw make_error(error.code(), error.detail().reason,
                     "metadata key '" + printable(key) + "' " + error.what(), key, {},
                     static_cast<std::uint64_t>(value.data() - bytes_.data()));
  }
}

std::uint64_t GgufFile::require_u64(std::string_view key) const {
  return with_key(key, require(key), [](const GgufValue& v) { return v.as_u64(); });
}

std::uint64_t GgufFile::get_u64(std::string_view key, std::uint64_t fallback) const {
  const GgufValue* value = find(key);
  return value == nullptr ? fallback
                          : with_key(key, *value, [](const GgufValue& v) { return v.as_u64(); });
}

std::int64_t GgufFile::get_i64(std::string_view key, std::int64_t fallback) const {
  const GgufValue* value = find(key);
  return value == nullptr ? fallback
                          : with_key(key, *value, [](const GgufValue& v) { return v.as_i64(); });
}

float GgufFile::require_f32(std::string_view key) const {
  return with_key(key, require(key), [](const GgufValue& v) { return v.as_f32(); });
}

float GgufFile::get_f32(std::string_view key, float fallback) const {
  const GgufValue* value = find(key);
  return value == nullptr ? fallback
                          : with_key(key, *value, [](const GgufValue& v) { return v.as_f32(); });
}

bool GgufFile::get_bool(std::string_view key, bool fallback) const {
  const GgufValue* value = find(key);
  return value == nullptr ? fallback
                          : with_key(key, *value, [](const GgufValue& v) { return v.as_bool(); });
}

std::string_view GgufFile::require_string(std::string_view key) const {
  return with_key(key, require(key), [](const GgufValue& v) { return v.as_string(); });
}

std::string_view GgufFile::get_string(std::string_view key, std::string_view fallback) const {
  const GgufValue* value = find(key);
  return value == nullptr ? fallback
                          : with_key(key, *value, [](const GgufValue& v) { return v.as_string(); });
}

std::vector<float> GgufFile::get_f32_array(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return {};
  return with_key(key, *value, [](const GgufValue& v) { return v.as_f32_array(); });
}

std::vector<std::int32_t> GgufFile::get_i32_array(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return {};
  return with_key(key, *value, [](const GgufValue& v) { return v.as_i32_array(); });
}

std::vector<std::uint64_t> GgufFile::get_u64_array(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return {};
  return with_key(key, *value, [](const GgufValue& v) { return v.as_u64_array(); });
}

std::vector<bool> GgufFile::get_bool_array(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return {};
  return with_key(key, *value, [](const GgufValue& v) { return v.as_bool_array(); });
}

std::vector<std::string_view> GgufFile::get_string_array(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return {};
  return with_key(key, *value, [](const GgufValue& v) { return v.as_string_array(); });
}

std::string_view GgufFile::architecture() const {
  constexpr std::string_view kKey = "general.architecture";
  constexpr std::size_t kMaxBytes = 64;
  const std::string_view name = require_string(kKey);
  if (name.size() > kMaxBytes) {
    throw make_error(ErrorCode::kModelFormat, "limit",
                     "metadata key 'general.architecture' is " + std::to_string(name.size()) +
                         " bytes long, the limit is " + std::to_string(kMaxBytes),
                     kKey);
  }
  bool valid = !name.empty();
  for (const char c : name) {
    valid = valid &&
            ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.');
  }
  if (!valid) {
    throw make_error(ErrorCode::kModelFormat, "bad_architecture",
                     "metadata key 'general.architecture' is '" + printable(name) +
                         "', expected a name of a-z, 0-9, '_', '-' and '.'",
                     kKey);
  }
  return name;
}

const TensorInfo* GgufFile::find_tensor(std::string_view name) const noexcept {
  const auto position =
      tensor_index_.find(name, [&](std::uint32_t i) { return std::string_view(tensors_[i].name); });
  return position ? &tensors_[*position] : nullptr;
}

}  // namespace specdec
