// How JSON is written: the parts of texts that are values.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/json.h"
#include "grammar/syntax.h"

namespace specdec::grammar {

// A number as it is compared: digits, not bits.
struct Decimal {
  bool negative = false;
  std::string whole = "0";  // without leading zeros
  std::string fraction;     // without trailing zeros
  [[nodiscard]] bool is_zero() const { return whole == "0" && fraction.empty(); }
};
[[nodiscard]] Decimal decimal_of(const Json& number);

struct Bound {
  Decimal value;
  bool exclusive = false;
};

class JsonText {
 public:
  explicit JsonText(Syntax& syntax);

  // Between the signs of an object or a list: enough to lay it out, too little to get lost in.
  [[nodiscard]] Part space() { return syntax_.call(space_); }
  // A character within a string, escaped if it has to be.
  [[nodiscard]] Part character() { return syntax_.call(character_); }
  [[nodiscard]] Part string(int min_length, int max_length);
  // A string whose characters are a part over UTF-8 text that needs no escape.
  [[nodiscard]] Part quoted_part(Part inside);
  // A string that is none of these.
  [[nodiscard]] Part other_string(const std::vector<std::string>& names);
  // As it is, with spaces where they may be.
  [[nodiscard]] Part literal(const Json& value);
  // A number within bounds, whole or with a fraction. A choice of none if there is none.
  [[nodiscard]] Part number(bool whole, const std::optional<Bound>& low,
                            const std::optional<Bound>& high);
  [[nodiscard]] Part comma() { return syntax_.sequence({space(), syntax_.text(","), space()}); }

 private:
  [[nodiscard]] Part digits(int low, int high);
  // 0 or more, digits without a sign.
  [[nodiscard]] Part magnitude(bool whole, const std::optional<Bound>& low,
                               const std::optional<Bound>& high);
  [[nodiscard]] Part of_length(std::size_t n, bool whole, const std::optional<Bound>& low,
                               const std::optional<Bound>& high);
  [[nodiscard]] Part other_rest(const std::vector<std::u32string>& names, std::size_t at);

  Syntax& syntax_;
  Rule space_, character_;
};

}  // namespace specdec::grammar
