// Reads "{architecture}.{suffix}" keys within stated ranges.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/reader.h"

namespace specdec {

class HparamReader {
 public:
  explicit HparamReader(const GgufFile& file);

  [[nodiscard]] const GgufFile& file() const noexcept { return file_; }
  [[nodiscard]] const std::string& architecture() const noexcept { return architecture_; }
  [[nodiscard]] std::string key(std::string_view suffix) const;
  [[nodiscard]] bool has(std::string_view suffix) const;

  // Per-layer arrays (where a scalar could stand) must have this many elements, all equal.
  void set_n_layers(int n_layers) noexcept { n_layers_ = n_layers; }

  // An integer in [min, max]; bad_hparam outside.
  [[nodiscard]] std::int64_t require_int(std::string_view suffix, std::int64_t min,
                                         std::int64_t max) const;
  [[nodiscard]] std::int64_t get_int(std::string_view suffix, std::int64_t fallback,
                                     std::int64_t min, std::int64_t max) const;
  // One per layer, of an array of truth values or of zeros and ones; empty: there is no array.
  [[nodiscard]] std::vector<bool> get_layer_flags(std::string_view suffix) const;
  // A finite number in [min, max].
  [[nodiscard]] double require_float(std::string_view suffix, double min, double max) const;
  [[nodiscard]] double get_float(std::string_view suffix, double fallback, double min,
                                 double max) const;
  [[nodiscard]] bool get_bool(std::string_view suffix, bool fallback) const;
  [[nodiscard]] std::string_view get_string(std::string_view suffix,
                                            std::string_view fallback) const;

  [[noreturn]] void fail(std::string_view suffix, const std::string& expected,
                         const std::string& found) const;
  [[noreturn]] void unsupported(std::string_view suffix, const std::string& what) const;

 private:
  [[nodiscard]] std::optional<std::uint64_t> find_uint(std::string_view suffix) const;

  const GgufFile& file_;
  std::string architecture_;
  int n_layers_ = 0;
};

}  // namespace specdec
