#include "cli/args.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include "base/error.h"

namespace specdec::cli {
namespace {

constexpr std::size_t kHelpColumn = 34;
constexpr std::size_t kHelpWidth = 96;

std::vector<std::string> split_words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
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

std::int64_t parse_integer(const std::string& name, const std::string& value, std::int64_t min,
                           std::int64_t max) {
  std::int64_t number = 0;
  const char* end = value.data() + value.size();
  const auto result = std::from_chars(value.data(), end, number);
  if (result.ec != std::errc() || result.ptr != end) {
    throw UsageError(name + " takes a whole number, got " + quoted(value));
  }
  if (number < min || number > max) {
    throw UsageError(name + " must be " + std::to_string(min) + " to " + std::to_string(max) +
                     ", got " + value);
  }
  return number;
}

std::string short_number(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

}  // namespace

std::string quoted(const std::string& text) { return "'" + printable(text, 80) + "'"; }

ArgParser::ArgParser(std::string command, std::string usage, std::string summary)
    : command_(std::move(command)), usage_(std::move(usage)), summary_(std::move(summary)) {}

void ArgParser::section(std::string title) { pending_section_ = std::move(title); }

void ArgParser::add(const std::string& names, std::string metavar, std::string help,
                    std::function<void(const std::string&)> set) {
  Option option;
  option.names = split_words(names);
  option.metavar = std::move(metavar);
  option.help = std::move(help);
  option.section = std::move(pending_section_);
  option.set = std::move(set);
  pending_section_.clear();
  options_.push_back(std::move(option));
}

void ArgParser::flag(const std::string& names, bool* value, std::string help, bool store) {
  add(names, "", std::move(help), [value, store](const std::string&) { *value = store; });
}

void ArgParser::text(const std::string& names, std::string metavar, std::string* value,
                     std::string help) {
  add(names, std::move(metavar), std::move(help), [value](const std::string& v) { *value = v; });
}

void ArgParser::list(const std::string& names, std::string metavar,
                     std::vector<std::string>* values, std::string help) {
  add(names, std::move(metavar), std::move(help),
      [values](const std::string& v) { values->push_back(v); });
}

void ArgParser::integer(const std::string& names, std::string metavar, std::int64_t* value,
                        std::int64_t min, std::int64_t max, std::string help) {
  const std::string name = split_words(names).back();
  add(names, std::move(metavar), std::move(help),
      [=](const std::string& v) { *value = parse_integer(name, v, min, max); });
}

void ArgParser::integer(const std::string& names, std::string metavar, int* value, int min, int max,
                        std::string help) {
  const std::string name = split_words(names).back();
  add(names, std::move(metavar), std::move(help),
      [=](const std::string& v) { *value = static_cast<int>(parse_integer(name, v, min, max)); });
}

void ArgParser::number(const std::string& names, std::string metavar, double* value, double min,
                       double max, std::string help) {
  const std::string name = split_words(names).back();
  add(names, std::move(metavar), std::move(help), [=](const std::string& v) {
    double number = 0;
    const char* end = v.data() + v.size();
    const auto result = std::from_chars(v.data(), end, number);
    if (result.ec != std::errc() || result.ptr != end || !std::isfinite(number)) {
      throw UsageError(name + " takes a number, got " + quoted(v));
    }
    if (number < min || number > max) {
      throw UsageError(name + " must be " + short_number(min) + " to " + short_number(max) +
                       ", got " + v);
    }
    *value = number;
  });
}

void ArgParser::choice(const std::string& names, std::string metavar, std::string* value,
                       std::vector<std::string> choices, std::string help) {
  const std::string name = split_words(names).back();
  add(names, std::move(metavar), std::move(help), [=](const std::string& v) {
    if (std::find(choices.begin(), choices.end(), v) == choices.end()) {
      std::string message = name + " must be one of";
      for (const std::string& c : choices) message += " " + c;
      throw UsageError(message + ", got " + quoted(v));
    }
    *value = v;
  });
}

void ArgParser::custom(const std::string& names, std::string metavar,
                       std::function<void(const std::string&)> parse, std::string help) {
  add(names, std::move(metavar), std::move(help), std::move(parse));
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

bool ArgParser::was_given(const std::string& name) const {
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
