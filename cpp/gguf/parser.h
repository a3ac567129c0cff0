// One parse of one file; builds a GgufFile. Internal to this layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "gguf/cursor.h"
#include "gguf/reader.h"
#include "gguf/rules.h"

namespace specdec {

class GgufParser {
 public:
  GgufParser(GgufFile* file, const GgufLimits& limits)
      : file_(*file), limits_(limits), cursor_(file->bytes_) {}

  void parse();

 private:
  void parse_header();
  void parse_key_values();
  [[nodiscard]] GgufValue parse_value(GgufType type);
  [[nodiscard]] GgufValue parse_array();
  void parse_tensors();
  void parse_tensor(TensorInfo* info);
  void check_general_keys();
  void place_tensors();

  void check_magic();
  [[nodiscard]] std::string_view parse_name(const char* what);
  [[nodiscard]] std::uint64_t parse_string_length(const char* what, bool in_array);
  [[nodiscard]] GgufType checked_type(std::uint32_t id, std::uint64_t at);
  template <typename T>
  [[nodiscard]] T read(const char* what);

  // Messages name the key or tensor being read.
  [[noreturn]] void fail(const char* reason, std::uint64_t at, const std::string& text) const;
  [[noreturn]] void unsupported(const char* reason, std::uint64_t at,
                                const std::string& text) const;
  [[noreturn]] void fail_truncated(const char* what) const;
  [[nodiscard]] std::string subject() const;

  GgufFile& file_;
  const GgufLimits& limits_;
  Cursor cursor_;
  std::uint64_t n_tensors_ = 0;
  std::uint64_t n_keys_ = 0;
  std::string_view key_;     // being read, for messages
  std::string_view tensor_;  // being read, for messages
};

}  // namespace specdec
