#include "chat_template/callable.h"

#include <algorithm>

namespace specdec::chat {

Value ObjectData::call(Interpreter&, Arguments&) {
  fail(std::string("'") + python_type() + "' object is not callable");
}

Bound::Bound(const char* function, const Arguments& arguments, std::string_view names)
    : function_(function) {
  std::size_t n_required = TextView::npos;
  while (!names.empty()) {
    const std::size_t end = std::min(names.find(' '), names.size());
    if (names.substr(0, end) == "|") {
      n_required = names_.size();
    } else {
      names_.push_back(names.substr(0, end));
    }
    names.remove_prefix(std::min(end + 1, names.size()));
  }
  n_required = std::min(n_required, names_.size());
  values_.resize(names_.size());
  if (arguments.positional.size() > names_.size()) {
    fail(std::string(function) + "() takes at most " + std::to_string(names_.size()) +
         " arguments (" + std::to_string(arguments.positional.size()) + " given)");
  }
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) {
    values_[i] = &arguments.positional[i];
  }
  for (const auto& [name, value] : arguments.named) {
    const auto at = std::find(names_.begin(), names_.end(), name);
    if (at == names_.end()) {
      fail(std::string(function) + "() got an unexpected keyword argument '" + name + "'");
    }
    const Value*& place = values_[static_cast<std::size_t>(at - names_.begin())];
    if (place != nullptr) {
      fail(std::string(function) + "() got multiple values for argument '" + name + "'");
    }
    place = &value;
  }
  for (std::size_t i = 0; i < n_required; ++i) {
    if (values_[i] == nullptr) {
      fail(std::string(function) + "() missing required argument '" + std::string(names_[i]) + "'");
    }
  }
}

bool Bound::flag(std::size_t i, bool otherwise) const {
  return values_[i] == nullptr ? otherwise : truthy(*values_[i]);
}

std::int64_t Bound::integer(std::size_t i, std::int64_t otherwise) const {
  return values_[i] == nullptr ? otherwise : integer(i);
}

std::int64_t Bound::integer(std::size_t i) const {
  const Value& value = *values_[i];
  require_defined(value);
  if (!value.is_whole()) {
    fail(std::string(function_) + "(): '" + std::string(names_[i]) +
         "' must be a whole number, not " + type_name(value));
  }
  return value.as_int();
}

TextView Bound::text(std::size_t i) const {
  const Value& value = *values_[i];
  require_defined(value);
  if (!value.is(Kind::kText)) {
    fail(std::string(function_) + "(): '" + std::string(names_[i]) + "' must be str, not " +
         type_name(value));
  }
  return value.as_text();
}

}  // namespace specdec::chat
