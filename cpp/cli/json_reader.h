// Reads a JSON document (RFC 8259).
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace specdec::cli {

struct JsonValue {
  enum class Kind { kNull, kBool, kNumber, kText, kArray, kObject };

  Kind kind = Kind::kNull;
  std::string text;                                        // kText; of a number as it is written
  bool flag = false;                                       // kBool
  std::vector<JsonValue> items;                            // kArray
  std::vector<std::pair<std::string, JsonValue>> members;  // kObject, in their order

  // The last member of this name; null when there is none.
  [[nodiscard]] const JsonValue* find(std::string_view name) const noexcept;
};

// `origin` is named in messages. Throws Error(kModelFormat) with the line: not JSON, not UTF-8, or
// nested more than 64 deep.
[[nodiscard]] JsonValue parse_json(std::string_view text, const std::string& origin);

}  // namespace specdec::cli
