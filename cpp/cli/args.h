// A small command line parser: options with aliases, checked values, help text.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

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
  // `names` separated by spaces, e.g. "-m --model"; the last long one names the option in messages.
  void flag(const std::string& names, bool* value, std::string help, bool store = true);
  void text(const std::string& names, std::string metavar, std::string* value, std::string help);
  void list(const std::string& names, std::string metavar, std::vector<std::string>* values,
            std::string help);
  void integer(const std::string& names, std::string metavar, std::int64_t* value, std::int64_t min,
               std::int64_t max, std::string help);
  void integer(const std::string& names, std::string metavar, int* value, int min, int max,
               std::string help);
  void number(const std::string& names, std::string metavar, double* value, double min, double max,
              std::string help);
  // One of `choices`; the message for another value lists them.
  void choice(const std::string& names, std::string metavar, std::string* value,
              std::vector<std::string> choices, std::string help);
  void custom(const std::string& names, std::string metavar,
              std::function<void(const std::string&)> parse, std::string help);
  // Lines under the options, e.g. examples.
  void epilogue(std::string text) { epilogue_ = std::move(text); }

  // False when --help was asked for. Throws UsageError; positional arguments fill the places that
  // were declared, in order, and more are refused.
  [[nodiscard]] bool parse(const std::vector<std::string>& arguments);
  void positional(std::string metavar, std::string* value, std::string help);
  [[nodiscard]] bool was_given(const std::string& name) const;
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
  void add(const std::string& names, std::string metavar, std::string help,
           std::function<void(const std::string&)> set);
  [[nodiscard]] std::string suggestion(const std::string& name) const;

  std::string command_, usage_, summary_, epilogue_;
  std::string pending_section_;
  std::vector<Option> options_;
  std::vector<Positional> positionals_;
};

// Shown by messages about an option's value.
[[nodiscard]] std::string quoted(const std::string& text);

}  // namespace specdec::cli
