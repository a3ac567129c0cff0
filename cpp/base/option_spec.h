// What every option is called, takes and means: one table for checks, flags, help and bindings.
#pragma once

#include <cmath>
#include <limits>

namespace specdec {

struct OptionSpec {
  const char* name;     // of Python and of messages
  const char* flags;    // of the command line, separated by spaces; "": none
  const char* metavar;  // "": the flag takes no value
  double min, max;      // of numbers; both 0: no number
  bool open_min, open_max;
  double none;           // the number that stands for "not given" on the command line; NaN: none
  double default_value;  // of numbers, on the command line where it has a flag
  bool store;            // what a flag without a value sets
  const char* default_text;
  const char* choices;  // separated by spaces; "": not a choice
  const char* help;     // of the flag
  const char* doc;      // of Python

  // NaN is not allowed anywhere.
  [[nodiscard]] constexpr bool allows(double value) const {
    return (open_min ? value > min : value >= min) && (open_max ? value < max : value <= max);
  }
  [[nodiscard]] bool has_none() const { return !std::isnan(none); }
};

namespace opt {

inline constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();

#include "base/option_table.inc"

}  // namespace opt
}  // namespace specdec
