// JSON as it is written in a schema.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace specdec::grammar {

class Json;
using JsonList = std::vector<Json>;
using JsonMembers = std::vector<std::pair<std::string, Json>>;  // in order; no name twice

class Json {
 public:
  Json() = default;                // null
  template <std::same_as<bool> T>  // no pointer is a truth value
  Json(T truth) : data_(truth) {}
  Json(double number) : data_(number) {}
  Json(std::int64_t number) : data_(number) {}
  Json(std::string text) : data_(std::move(text)) {}
  Json(JsonList items) : data_(std::move(items)) {}
  Json(JsonMembers members) : data_(std::move(members)) {}

  [[nodiscard]] bool is_null() const noexcept { return data_.index() == 0; }
  [[nodiscard]] const bool* boolean() const noexcept { return std::get_if<bool>(&data_); }
  [[nodiscard]] const std::int64_t* whole() const noexcept {
    return std::get_if<std::int64_t>(&data_);
  }
  [[nodiscard]] std::optional<double> number() const noexcept;
  [[nodiscard]] const std::string* text() const noexcept {
    return std::get_if<std::string>(&data_);
  }
  [[nodiscard]] const JsonList* list() const noexcept { return std::get_if<JsonList>(&data_); }
  [[nodiscard]] const JsonMembers* members() const noexcept {
    return std::get_if<JsonMembers>(&data_);
  }
  [[nodiscard]] const Json* find(std::string_view name) const noexcept;  // of an object

  // On one line, without spaces; numbers that are equal are written alike.
  [[nodiscard]] std::string dump() const;
  friend bool operator==(const Json& a, const Json& b) { return a.dump() == b.dump(); }

 private:
  std::variant<std::monostate, bool, std::int64_t, double, std::string, JsonList, JsonMembers>
      data_;
};

// `what` names the text in messages. Throws Error(kInvalidArgument).
[[nodiscard]] Json parse_json(std::string_view text, const std::string& what);
// The text of a string between quotes; what JSON lets stand is not escaped.
[[nodiscard]] std::string quoted(std::string_view text);

}  // namespace specdec::grammar
