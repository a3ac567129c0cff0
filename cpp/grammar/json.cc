#include "grammar/json.h"

#include <array>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "chat_template/json_reader.h"

namespace specdec::grammar {
namespace {

Json to_json(const chat::Value& value, const std::string& what) {
  using chat::Kind;
  switch (value.kind()) {
    case Kind::kNone:
      return {};
    case Kind::kBool:
      return value.as_bool();
    case Kind::kInt:
      return value.as_int();
    case Kind::kFloat: {
      const double number = value.as_double();
      if (!std::isfinite(number)) throw_invalid(what + ": NaN and Infinity are no JSON");
      constexpr double kExact = 9007199254740992.0;  // 2^53: 1.0 is the number 1
      if (std::floor(number) == number && std::abs(number) <= kExact)
        return static_cast<std::int64_t>(number);
      return number;
    }
    case Kind::kText:
      return chat::to_bytes(value.as_text());
    case Kind::kList: {
      JsonList items;
      for (const chat::Value& item : value.as_list().items) items.push_back(to_json(item, what));
      return items;
    }
    case Kind::kDict: {
      JsonMembers members;
      for (const auto& [key, inner] : value.as_dict().entries)
        members.emplace_back(chat::to_bytes(key.as_text()), to_json(inner, what));
      return members;
    }
    default:
      break;
  }
  throw_invalid(what + " has a value that JSON does not have");
}

std::string shortest(double number) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), number);
  return {text.data(), end.ptr};
}

}  // namespace

std::optional<double> Json::number() const noexcept {
  if (const auto* whole = std::get_if<std::int64_t>(&data_)) return static_cast<double>(*whole);
  if (const auto* real = std::get_if<double>(&data_)) return *real;
  return std::nullopt;
}

const Json* Json::find(std::string_view name) const noexcept {
  if (members() == nullptr) return nullptr;
  for (const auto& [key, value] : *members())
    if (key == name) return &value;
  return nullptr;
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    constexpr std::string_view kShort = "\"\\\b\f\n\r\t", kLetters = "\"\\bfnrt";
    const std::size_t at = kShort.find(c);
    if (at != std::string_view::npos) {
      out += {'\\', kLetters[at]};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      constexpr std::string_view kDigits = "0123456789abcdef";
      out += "\\u00";
      out += {kDigits[static_cast<unsigned char>(c) >> 4], kDigits[c & 15]};
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string Json::dump() const {
  if (is_null()) return "null";
  if (const bool* truth = boolean()) return *truth ? "true" : "false";
  if (const std::int64_t* number = whole()) return std::to_string(*number);
  if (const auto* real = std::get_if<double>(&data_)) return shortest(*real);
  if (const std::string* string = text()) return quoted(*string);
  std::string out;
  if (const JsonList* items = list()) {
    for (const Json& item : *items) out += (out.empty() ? "" : ",") + item.dump();
    return "[" + out + "]";
  }
  for (const auto& [name, value] : *members())
    out += (out.empty() ? "" : ",") + quoted(name) + ":" + value.dump();
  return "{" + out + "}";
}

Json parse_json(std::string_view text, const std::string& what) {
  chat::Budget budget(chat::Limits{});
  return to_json(chat::read_json(budget, text, 0, what), what);
}

}  // namespace specdec::grammar
