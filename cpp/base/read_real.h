// std::from_chars for floating-point numbers, also where the C++ library lacks it: libc++ has it
// from version 20 on, and Apple's only with the macOS that it came with.
#pragma once

#include <charconv>

namespace specdec {

// As std::from_chars: the longest number that [first, last) begins with, whatever the locale;
// `value` is only written to when `ec` is none.
std::from_chars_result read_real(const char* first, const char* last, double& value,
                                 std::chars_format format = std::chars_format::general);
std::from_chars_result read_real(const char* first, const char* last, float& value,
                                 std::chars_format format = std::chars_format::general);

// What they are without the library's help. For tests.
std::from_chars_result read_real_by_strtod(const char* first, const char* last, double& value,
                                           std::chars_format format);
std::from_chars_result read_real_by_strtod(const char* first, const char* last, float& value,
                                           std::chars_format format);

}  // namespace specdec
