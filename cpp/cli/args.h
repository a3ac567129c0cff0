// A small command line parser: options with aliases, checked values, help text.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/option_spec.h"

namespace specdec::cli {

// What the user typed makes no sense: exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class ArgParser {
 public:
  ArgParser(std::string command, std::string usage, std::string summary);

  void section(std::string title);
  // An option of the table: its names, range, default and help. Sets *value to the default; a
  // string takes one of the option's choices, if it has some.
  void add(const OptionSpec& spec, bool* value);
  void add(const OptionSpec& spec, int* value);
  void add(const OptionSpec& spec, double* value);
  void add(const OptionSpec& spec, std::string* value);
  void add(const OptionSpec& spec, std::vector<std::string>* values);  // repeatable
  void add(const OptionSpec& spec, std::function<void(const std::string&)> parse);
  // Lines under the options, e.g. examples.
  void epilogue(std::string text) { epilogue_ = std::move(text); }

  // False when --help was asked for. Throws UsageError; positional arguments fill the places that
  // were declared, in order, and more are refused.
  [[nodiscard]] bool parse(const std::vector<std::string>& arguments);
  void positional(std::string metavar, std::string* value, std::string help);
  [[nodiscard]] bool was_given(const OptionSpec& spec) const;
  [[nodiscard]] std::string help() const;

 private:
  struct Option {
    std::vector<std::string> names;
    std::string metavar;  // empty: takes no value
    std::string help;
    std::string section;  // printed above, once
    std::function<void(const std::string&)> set;
    bool given = false;
  };

  struct Positional {
    std::string metavar, help;
    std::string* value;
  };

  Option* find(const std::string& name);
  [[nodiscard]] std::string suggestion(const std::string& name) const;

  std::string command_, usage_, summary_, epilogue_;
  std::string pending_section_;
  std::vector<Option> options_;
  std::vector<Positional> positionals_;
};

// How messages call an option: "--top-k".
[[nodiscard]] std::string flag_name(const OptionSpec& spec);
// One of `choices`, or a UsageError that lists them.
void check_choice(const OptionSpec& spec, const std::string& value,
                  const std::vector<std::string>& choices);

// Shown by messages about an option's value.
[[nodiscard]] std::string quoted(const std::string& text);

}  // namespace specdec::cli
