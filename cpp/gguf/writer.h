// Writes GGUF version 3 files. Refuses what the reader would refuse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "gguf/value.h"
#include "tensor/dtype.h"

namespace specdec {

class AtomicFile;

// Keys and tensors are written in the order in which they are added. Errors are
// Error(kInvalidArgument) with the reader's reason codes, before anything is written.
class GgufWriter {
 public:
  // Writes `alignment` as general.alignment unless it is the default of 32.
  explicit GgufWriter(std::uint32_t alignment = 32);

  void add_u8(std::string_view key, std::uint8_t value);
  void add_i8(std::string_view key, std::int8_t value);
  void add_u16(std::string_view key, std::uint16_t value);
  void add_i16(std::string_view key, std::int16_t value);
  void add_u32(std::string_view key, std::uint32_t value);
  void add_i32(std::string_view key, std::int32_t value);
  void add_u64(std::string_view key, std::uint64_t value);
  void add_i64(std::string_view key, std::int64_t value);
  void add_f32(std::string_view key, float value);
  void add_f64(std::string_view key, double value);
  void add_bool(std::string_view key, bool value);
  void add_string(std::string_view key, std::string_view value);

  // T: the ten number types.
  template <typename T>
  void add_array(std::string_view key, std::span<const T> values);
  void add_bool_array(std::string_view key, const std::vector<bool>& values);
  void add_string_array(std::string_view key, std::span<const std::string_view> values);
  void add_string_array(std::string_view key, std::span<const std::string> values);

  // Copies a value of any type from another file. general.alignment is skipped when it equals this
  // writer's and refused otherwise.
  void add_value(std::string_view key, const GgufValue& value);

  // Called when the tensor's turn has come; it must hand over exactly n_bytes in pieces of any
  // size.
  using Sink = std::function<void(std::span<const std::byte>)>;
  using Producer = std::function<void(const Sink&)>;

  // `data` stays the caller's and must live until write() returns. Shape innermost first.
  void add_tensor(std::string_view name, DType dtype, std::span<const std::uint64_t> shape,
                  std::span<const std::byte> data);
  void add_tensor(std::string_view name, DType dtype, std::span<const std::uint64_t> shape,
                  Producer producer);

  // What write() will return, tensors of a producer included.
  [[nodiscard]] std::uint64_t size() const;

  // Writes a temporary file beside `path`, syncs it, and renames it over `path`: after a crash or
  // an error `path` holds the old content or the new, never a part. Replacing a file that is mapped
  // (even the source of this data) is safe. Returns the file size. Throws Error(kIo).
  std::uint64_t write(const std::string& path) const;
  // The same for the parts of a model, which appear together: the first last, and an older one goes
  // before, so that parts of two models are never taken for one. Returns the size of all.
  static std::uint64_t write_parts(std::span<const GgufWriter> parts,
                                   std::span<const std::string> paths);

 private:
  struct Tensor {
    std::string name;
    DType dtype;
    std::vector<std::uint64_t> shape;
    std::uint64_t n_bytes;
    std::span<const std::byte> data;
    Producer producer;  // when set, data is unused
  };

  void begin_key(std::string_view key, GgufType type);
  void append_key(std::string_view key, GgufType type);
  void begin_array(std::string_view key, GgufType element_type, std::uint64_t count);
  void append(const void* data, std::size_t n_bytes);
  template <typename T>
  void append_number(T value) {
    append(&value, sizeof value);
  }
  void append_string(std::string_view text);
  template <typename T>
  void add_number(std::string_view key, GgufType type, T value);
  Tensor& push_tensor(std::string_view name, DType dtype, std::span<const std::uint64_t> shape);
  [[nodiscard]] std::string header() const;
  void write_to(AtomicFile& file) const;

  std::uint32_t alignment_;
  std::uint64_t n_keys_ = 0;
  std::string metadata_;  // encoded key/value pairs
  std::unordered_set<std::string> keys_;
  std::vector<Tensor> tensors_;
  std::unordered_set<std::string> tensor_names_;
};

}  // namespace specdec
