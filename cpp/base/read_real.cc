#include "base/read_real.h"

#include <locale.h>
#include <stdlib.h>
#if defined(__APPLE__)
#include <xlocale.h>
#endif

#include <cmath>
#include <string>
#include <string_view>

namespace specdec {
namespace {

#if defined(_LIBCPP_VERSION) && (defined(__APPLE__) || _LIBCPP_VERSION < 200000)
constexpr bool kHasFromChars = false;
#else
constexpr bool kHasFromChars = true;
#endif

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_letter(char c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }

// Letters of either case.
bool begins_with(const char* at, const char* last, std::string_view word) {
  if (last - at < static_cast<std::ptrdiff_t>(word.size())) return false;
  for (const char c : word) {
    if ((*at++ | 0x20) != c) return false;
  }
  return true;
}

// Behind a payload in parentheses, if there is one.
const char* end_of_nan(const char* at, const char* last) {
  if (at == last || *at != '(') return at;
  const char* close = at + 1;
  while (close != last && (is_digit(*close) || *close == '_' || is_letter(*close))) ++close;
  return close != last && *close == ')' ? close + 1 : at;
}

// One past what from_chars() would read as a number; `first` where there is none.
const char* end_of_number(const char* first, const char* last, std::chars_format format) {
  const char* at = first;
  if (at != last && *at == '-') ++at;
  if (begins_with(at, last, "infinity")) return at + 8;
  if (begins_with(at, last, "inf")) return at + 3;
  if (begins_with(at, last, "nan")) return end_of_nan(at + 3, last);
  bool has_digits = false;
  for (; at != last && is_digit(*at); ++at) has_digits = true;
  if (at != last && *at == '.') {
    const char* fraction = at + 1;
    while (fraction != last && is_digit(*fraction)) ++fraction;
    has_digits |= fraction != at + 1;
    if (has_digits) at = fraction;
  }
  if (!has_digits) return first;
  if (format == std::chars_format::fixed || at == last || (*at | 0x20) != 'e') return at;
  const char* exponent = at + 1;
  if (exponent != last && (*exponent == '+' || *exponent == '-')) ++exponent;
  if (exponent == last || !is_digit(*exponent)) return at;
  while (exponent != last && is_digit(*exponent)) ++exponent;
  return exponent;
}

double converted(const char* text, locale_t plain, double) {
  return ::strtod_l(text, nullptr, plain);
}
float converted(const char* text, locale_t plain, float) {
  return ::strtof_l(text, nullptr, plain);
}

template <typename Real>
std::from_chars_result by_strtod(const char* first, const char* last, Real& value,
                                 std::chars_format format) {
  const char* end = end_of_number(first, last, format);
  if (end == first) return {first, std::errc::invalid_argument};
  static const locale_t plain = ::newlocale(LC_ALL_MASK, "C", nullptr);
  const std::string text(first, end);  // ends where strtod() must stop
  const Real found = converted(text.c_str(), plain, Real{});
  const bool named = is_letter(text[text[0] == '-' ? 1 : 0]);  // inf, infinity, nan
  const bool is_zero = text.find_first_of("123456789") >= text.find_first_of("eE");
  if (!named && (std::isinf(found) || (found == 0 && !is_zero)))
    return {end, std::errc::result_out_of_range};
  value = found;
  return {end, std::errc()};
}

template <typename Real>
std::from_chars_result read(const char* first, const char* last, Real& value,
                            std::chars_format format) {
  if constexpr (kHasFromChars) {
    return std::from_chars(first, last, value, format);
  } else {
    return by_strtod(first, last, value, format);
  }
}

}  // namespace

std::from_chars_result read_real(const char* first, const char* last, double& value,
                                 std::chars_format format) {
  return read(first, last, value, format);
}
std::from_chars_result read_real(const char* first, const char* last, float& value,
                                 std::chars_format format) {
  return read(first, last, value, format);
}
std::from_chars_result read_real_by_strtod(const char* first, const char* last, double& value,
                                           std::chars_format format) {
  return by_strtod(first, last, value, format);
}
std::from_chars_result read_real_by_strtod(const char* first, const char* last, float& value,
                                           std::chars_format format) {
  return by_strtod(first, last, value, format);
}

}  // namespace specdec
