#include "cli/args.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <sstream>
#include <string_view>
#include <type_traits>

#include "base/error.h"
#include "base/read_real.h"

namespace specdec::cli {
namespace {

constexpr std::size_t kHelpColumn = 34;
constexpr std::size_t kHelpWidth = 96;

// Not with a stream: without memory, one ends early instead of throwing.
std::vector<std::string> split_words(const std::string& text) {
  constexpr const char* kSpace = " \t\n";
  std::vector<std::string> words;
  for (std::size_t at = text.find_first_not_of(kSpace); at != std::string::npos;) {
    const std::size_t end = std::min(text.find_first_of(kSpace, at), text.size());
    words.push_back(text.substr(at, end - at));
    at = text.find_first_not_of(kSpace, end);
  }
  return words;
}

// Appends `text` word by word, wrapped, continued at `indent`.
void append_wrapped(std::string& out, const std::string& text, std::size_t indent) {
  std::size_t column = indent;
  for (const std::string& word : split_words(text)) {
    if (column != indent && column + 1 + word.size() > kHelpWidth) {
      out += '\n';
      out.append(indent, ' ');
      column = indent;
    }
    if (column != indent) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
  }
  out += '\n';
}

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string short_number(double value) {
  std::ostringstream out;
  out.precision(15);
  out << value;
  return out.str();
}

// "0 to 64", "0 to 1, without 1"
std::string range_text(const OptionSpec& spec) {
  std::string text = short_number(spec.min) + " to " + short_number(spec.max);
  if (spec.open_min) text += ", without " + short_number(spec.min);
  if (spec.open_max) text += ", without " + short_number(spec.max);
  if (spec.has_none()) text += ", or " + short_number(spec.none);
  return text;
}

template <typename Number>
std::from_chars_result read_number(const char* first, const char* last, Number& number) {
  if constexpr (std::is_floating_point_v<Number>) {
    return read_real(first, last, number);
  } else {
    return std::from_chars(first, last, number);
  }
}

template <typename Number>
Number parse_number(const OptionSpec& spec, const std::string& text, const char* kind) {
  Number number = 0;
  const char* end = text.data() + text.size();
  const auto result = read_number(text.data(), end, number);
  const auto value = static_cast<double>(number);
  // A number too large for its type is out of the range too.
  const bool is_number = result.ptr == end && result.ec != std::errc::invalid_argument;
  if (!is_number || !std::isfinite(value))
    throw UsageError(flag_name(spec) + " takes " + kind + ", got " + quoted(text));
  const bool none = spec.has_none() && value == spec.none;
  if (result.ec != std::errc() || (!none && !spec.allows(value)))
    throw UsageError(flag_name(spec) + " must be " + range_text(spec) + ", got " + text);
  return number;
}

}  // namespace

std::string flag_name(const OptionSpec& spec) { return split_words(spec.flags).back(); }

void check_choice(const OptionSpec& spec, const std::string& value,
                  const std::vector<std::string>& choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return;
  std::string message = flag_name(spec) + " must be one of";
  for (const std::string& choice : choices) message += " " + choice;
  throw UsageError(message + ", got " + quoted(value));
}

std::string quoted(const std::string& text) { return "'" + printable(text, 80) + "'"; }

ArgParser::ArgParser(std::string command, std::string usage, std::string summary)
    : command_(std::move(command)), usage_(std::move(usage)), summary_(std::move(summary)) {}

void ArgParser::section(std::string title) { pending_section_ = std::move(title); }

void ArgParser::add(const OptionSpec& spec, std::function<void(const std::string&)> parse) {
  Option option;
  option.names = split_words(spec.flags);
  option.metavar = spec.metavar;
  option.help = spec.help;
  option.section = std::move(pending_section_);
  option.set = std::move(parse);
  pending_section_.clear();
  options_.push_back(std::move(option));
}

void ArgParser::add(const OptionSpec& spec, bool* value) {
  *value = spec.default_value != 0;
  add(spec, [value, &spec](const std::string&) { *value = spec.store; });
}

void ArgParser::add(const OptionSpec& spec, int* value) {
  *value = static_cast<int>(spec.default_value);
  add(spec, [value, &spec](const std::string& text) {
    *value = parse_number<int>(spec, text, "a whole number");
  });
}

void ArgParser::add(const OptionSpec& spec, double* value) {
  *value = spec.default_value;
  add(spec, [value, &spec](const std::string& text) {
    *value = parse_number<double>(spec, text, "a number");
  });
}

void ArgParser::add(const OptionSpec& spec, std::string* value) {
  *value = spec.default_text;
  add(spec, [value, &spec](const std::string& text) {
    const std::vector<std::string> choices = split_words(spec.choices);
    if (!choices.empty()) check_choice(spec, text, choices);
    const std::string_view what = spec.metavar;
    if (text.empty() && (what == "FILE" || what == "PATH"))  // a variable that is not set
      throw UsageError(flag_name(spec) + " is empty; expected a " + std::string(what));
    *value = text;
  });
}

void ArgParser::add(const OptionSpec& spec, std::vector<std::string>* values) {
  add(spec, [values](const std::string& text) { values->push_back(text); });
}

void ArgParser::positional(std::string metavar, std::string* value, std::string help) {
  positionals_.push_back({std::move(metavar), std::move(help), value});
}

ArgParser::Option* ArgParser::find(const std::string& name) {
  for (Option& option : options_) {
    if (std::find(option.names.begin(), option.names.end(), name) != option.names.end()) {
      return &option;
    }
  }
  return nullptr;
}

bool ArgParser::was_given(const OptionSpec& spec) const {
  const std::string name = flag_name(spec);
  for (const Option& option : options_) {
    if (option.given &&
        std::find(option.names.begin(), option.names.end(), name) != option.names.end()) {
      return true;
    }
  }
  return false;
}

std::string ArgParser::suggestion(const std::string& name) const {
  std::string best;
  std::size_t best_distance = 3;  // more differences than two: no help
  for (const Option& option : options_) {
    for (const std::string& candidate : option.names) {
      const std::size_t distance = edit_distance(name, candidate);
      if (distance < best_distance && distance < candidate.size() - 1) {
        best = candidate;
        best_distance = distance;
      }
    }
  }
  return best;
}

bool ArgParser::parse(const std::vector<std::string>& arguments) {
  std::size_t n_positional = 0;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string name = arguments[i];
    if (name == "-h" || name == "--help") return false;
    if (name.size() < 2 || name[0] != '-') {
      if (n_positional == positionals_.size()) {
        throw UsageError("unexpected argument " + quoted(name));
      }
      *positionals_[n_positional++].value = name;
      continue;
    }
    Option* option = find(name);
    std::string value;
    bool has_value = false;
    if (option == nullptr && name.starts_with("--")) {
      const std::size_t equals = name.find('=');
      if (equals != std::string::npos) {
        value = name.substr(equals + 1);
        name.resize(equals);
        option = find(name);
        has_value = true;
      }
    }
    if (option == nullptr) {
      const std::string best = suggestion(name);
      throw UsageError("unknown option " + quoted(name) +
                       (best.empty() ? "" : "; did you mean " + best + "?"));
    }
    if (option->metavar.empty()) {
      if (has_value) throw UsageError(name + " takes no value");
    } else if (!has_value) {
      if (i + 1 == arguments.size()) {
        throw UsageError(name + " needs a value: " + name + " " + option->metavar);
      }
      value = arguments[++i];
    }
    option->set(value);
    option->given = true;
  }
  return true;
}

std::string ArgParser::help() const {
  std::string out = "Usage: specdec " + command_ + " " + usage_ + "\n\n";
  append_wrapped(out, summary_, 0);
  auto entry = [&out](const std::string& left, const std::string& text) {
    std::string head = "  " + left;
    if (head.size() + 2 > kHelpColumn) {
      head += '\n';
      head.append(kHelpColumn, ' ');
    } else {
      head.append(kHelpColumn - head.size(), ' ');
    }
    out += head;
    append_wrapped(out, text, kHelpColumn);
  };
  if (!positionals_.empty()) out += '\n';
  for (const Positional& positional : positionals_) entry(positional.metavar, positional.help);
  for (const Option& option : options_) {
    if (!option.section.empty()) out += "\n" + option.section + ":\n";
    std::string left;
    for (const std::string& name : option.names) left += (left.empty() ? "" : ", ") + name;
    if (!option.metavar.empty()) left += " " + option.metavar;
    entry(left, option.help);
  }
  entry("-h, --help", "Show this text.");
  if (!epilogue_.empty()) out += "\n" + epilogue_ + "\n";
  return out;
}

}  // namespace specdec::cli
