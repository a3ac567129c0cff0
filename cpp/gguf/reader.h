// Reads a GGUF file (version 2 or 3, little-endian) that nobody vouches for. Whatever the bytes
// are, opening either succeeds with everything below checked or throws Error; it never reads
// outside the file, and allocates in proportion to the metadata that is really there.
//
// What is accepted is a subset of what llama.cpp accepts. Refusals carry ErrorDetail::reason:
//   kModelFormat  truncated bad_magic bad_version count_exceeds_file string_exceeds_file limit
//                 bad_key bad_utf8 duplicate_key bad_type bad_bool wrong_type missing_key bad_value
//                 bad_alignment bad_name bad_ndims bad_dim size_overflow bad_block
//                 duplicate_tensor bad_offset exceeds_file non_finite bad_architecture changed
//                 bad_split missing_part
//   kUnsupported  big_endian nested_array bad_alignment (24, 48, ...) split_file tensor_type
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "gguf/name_index.h"
#include "gguf/value.h"
#include "tensor/dtype.h"

namespace specdec {

// Caps on top of "must fit in the file"; a test or a server may lower them.
struct GgufLimits {
  std::uint64_t max_keys = std::uint64_t{1} << 20;
  std::uint64_t max_tensors = std::uint64_t{1} << 16;
  std::uint64_t max_array_elements = std::uint64_t{1} << 30;
  std::uint64_t max_string_bytes = std::uint64_t{64} << 20;
};

struct GgufEntry {
  std::string_view key;  // into the file
  GgufValue value;
};

// Of tensors that hold ids, I64: no weights, no codec knows it. check_slots() lets nothing else
// have it.
inline constexpr DType kIdType{27};

struct TensorInfo {
  std::string name;
  std::uint32_t type_id = 0;
  DType dtype = DType::kF32;
  std::vector<std::uint64_t> shape;  // 1 to 4 sizes, innermost (contiguous) first
  std::uint64_t offset = 0;          // from the start of the file, or of its part
  std::uint64_t n_bytes = 0;
  std::uint64_t n_elements = 0;
  std::uint32_t part = 0;  // of a model in several files
};

// A checked file, immutable: share it between threads.
class GgufFile {
 public:
  // The first file of several opens the others, which lie beside it; its metadata is the model's.
  static std::shared_ptr<const GgufFile> open(const std::string& path,
                                              const GgufLimits& limits = {});
  // One file alone, which may be a part of a model.
  static std::shared_ptr<const GgufFile> open_part(const std::string& path) {
    return open_one(path, {});
  }
  // Parses memory that the caller keeps alive and unchanged; nothing is copied.
  static std::shared_ptr<const GgufFile> parse(std::span<const std::byte> bytes,
                                               const std::string& path_for_messages,
                                               const GgufLimits& limits = {});

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] std::uint32_t version() const noexcept { return version_; }
  [[nodiscard]] std::uint32_t alignment() const noexcept { return alignment_; }
  [[nodiscard]] std::uint64_t file_size() const noexcept { return bytes_.size(); }
  [[nodiscard]] std::size_t n_parts() const noexcept { return 1 + others_.size(); }
  [[nodiscard]] std::uint64_t total_size() const noexcept;  // of all parts
  [[nodiscard]] std::uint64_t data_start() const noexcept { return data_start_; }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
  // After use of what was read: throws as MappedFile::check_whole().
  void check_whole() const;
  // Of the size, time of modification and metadata of all files of the model: of another model, or
  // after a change, all but certainly another number. 0: it is in memory.
  [[nodiscard]] std::uint64_t stamp() const;
  // "trailing_bytes: ..." and the like, for the load report.
  [[nodiscard]] const std::vector<std::string>& warnings() const noexcept { return warnings_; }

  // All keys in file order.
  [[nodiscard]] std::span<const GgufEntry> entries() const noexcept { return entries_; }
  [[nodiscard]] const GgufValue* find(std::string_view key) const noexcept;

  // require_*: Error(kModelFormat, missing_key) when absent. All: wrong_type for another type and
  // bad_value for a negative count, naming the key. Integers may be stored in any integer type.
  [[nodiscard]] const GgufValue& require(std::string_view key) const;
  [[nodiscard]] std::uint64_t require_u64(std::string_view key) const;
  [[nodiscard]] std::uint64_t get_u64(std::string_view key, std::uint64_t fallback) const;
  [[nodiscard]] std::int64_t get_i64(std::string_view key, std::int64_t fallback) const;
  [[nodiscard]] float require_f32(std::string_view key) const;
  [[nodiscard]] float get_f32(std::string_view key, float fallback) const;
  [[nodiscard]] bool get_bool(std::string_view key, bool fallback) const;
  // Strings are views into the file. Tokens need not be UTF-8; check what must be.
  [[nodiscard]] std::string_view require_string(std::string_view key) const;
  [[nodiscard]] std::string_view get_string(std::string_view key, std::string_view fallback) const;
  // Arrays: empty when the key is absent.
  [[nodiscard]] std::vector<float> get_f32_array(std::string_view key) const;
  [[nodiscard]] std::vector<std::int32_t> get_i32_array(std::string_view key) const;
  [[nodiscard]] std::vector<std::uint64_t> get_u64_array(std::string_view key) const;
  [[nodiscard]] std::vector<bool> get_bool_array(std::string_view key) const;
  [[nodiscard]] std::vector<std::string_view> get_string_array(std::string_view key) const;
  // general.architecture: 1 to 64 bytes of [a-z0-9_.-], or missing_key, wrong_type, limit,
  // bad_architecture. Whether it is one we implement is the model layer's question.
  [[nodiscard]] std::string_view architecture() const;

  // In file order.
  [[nodiscard]] const std::vector<TensorInfo>& tensors() const noexcept { return tensors_; }
  [[nodiscard]] const TensorInfo* find_tensor(std::string_view name) const noexcept;
  // [n_bytes] of a tensor of this file.
  [[nodiscard]] std::span<const std::byte> tensor_data(const TensorInfo& tensor) const;

  // Hints to the system that bytes [from, from + n_bytes) of a tensor will be read soon, or are no
  // longer needed in memory.
  void will_need(const TensorInfo& tensor, std::uint64_t from,
                 std::uint64_t n_bytes) const noexcept;
  void release(const TensorInfo& tensor, std::uint64_t from, std::uint64_t n_bytes) const noexcept;

  // An Error about this file, for the layers that validate further. The message gets the path in
  // front; `text` must already be printable.
  [[nodiscard]] Error make_error(ErrorCode code, std::string reason, const std::string& text,
                                 std::string_view key = {}, std::string_view tensor = {},
                                 std::optional<std::uint64_t> offset = {}) const;

 private:
  friend class GgufParser;
  GgufFile() = default;

  static std::shared_ptr<GgufFile> open_one(const std::string& path, const GgufLimits& limits);
  void open_parts(const GgufLimits& limits);
  void add_part(std::shared_ptr<const GgufFile> part, std::uint64_t count);
  [[nodiscard]] const GgufFile& part(std::uint32_t index) const {
    return index == 0 ? *this : *others_[index - 1];
  }

  template <typename Function>
  auto with_key(std::string_view key, const GgufValue& value, Function function) const;

  std::string path_;
  std::optional<MappedFile> mapping_;
  std::span<const std::byte> bytes_;
  std::uint32_t version_ = 0;
  std::uint32_t alignment_ = 32;
  std::uint64_t data_start_ = 0;
  std::vector<GgufEntry> entries_;
  std::vector<TensorInfo> tensors_;
  NameIndex key_index_;
  NameIndex tensor_index_;
  std::vector<std::string> warnings_;
  std::vector<std::shared_ptr<const GgufFile>> others_;  // parts behind the first
};

// Throws Error(kModelFormat, non_finite) at the first NaN or infinity among the values of an F32,
// F16 or BF16 tensor or among the scales of a quantised one. Reads the whole tensor.
void check_tensor_values(const GgufFile& file, const TensorInfo& tensor);

}  // namespace specdec
