#include "model/hparams.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace specdec {

namespace {

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

}  // namespace

HparamReader::HparamReader(const GgufFile& file)
    : file_(file), architecture_(file.architecture()) {}

std::string HparamReader::key(std::string_view suffix) const {
  return architecture_ + "." + std::string(suffix);
}

bool HparamReader::has(std::string_view suffix) const { return file_.find(key(suffix)) != nullptr; }

void HparamReader::fail(std::string_view suffix, const std::string& expected,
                        const std::string& found) const {
  const std::string name = key(suffix);
  throw file_.make_error(ErrorCode::kModelFormat, "bad_hparam",
                         "key '" + printable(name) + "' should be " + expected + ", found " + found,
                         name);
}

void HparamReader::unsupported(std::string_view suffix, const std::string& what) const {
  const std::string name = key(suffix);
  throw file_.make_error(ErrorCode::kUnsupported, "hparam",
                         "key '" + printable(name) + "': " + what + " is not supported", name);
}

std::optional<std::uint64_t> HparamReader::find_uint(std::string_view suffix) const {
  const std::string name = key(suffix);
  const GgufValue* value = file_.find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_array()) return file_.require_u64(name);
  if (n_layers_ == 0) unsupported(suffix, "an array in place of one number");
  if (value->count() != static_cast<std::uint64_t>(n_layers_)) {
    fail(suffix, "one number, or " + std::to_string(n_layers_) + " (one per layer)",
         std::to_string(value->count()) + " numbers");
  }
  const std::vector<std::uint64_t> values = file_.get_u64_array(name);
  if (std::any_of(values.begin(), values.end(), [&](std::uint64_t v) { return v != values[0]; })) {
    unsupported(suffix, "a different number per layer");
  }
  return values[0];
}

std::int64_t HparamReader::get_int(std::string_view suffix, std::int64_t fallback, std::int64_t min,
                                   std::int64_t max) const {
  const auto value = find_uint(suffix);
  if (!value) return fallback;
  if (*value > static_cast<std::uint64_t>(max) || static_cast<std::int64_t>(*value) < min) {
    fail(suffix, "from " + std::to_string(min) + " to " + std::to_string(max),
         std::to_string(*value));
  }
  return static_cast<std::int64_t>(*value);
}

std::int64_t HparamReader::require_int(std::string_view suffix, std::int64_t min,
                                       std::int64_t max) const {
  (void)file_.require(key(suffix));
  return get_int(suffix, 0, min, max);
}

std::vector<bool> HparamReader::get_layer_flags(std::string_view suffix) const {
  const std::string name = key(suffix);
  const GgufValue* value = file_.find(name);
  if (value == nullptr || !value->is_array()) return {};
  if (value->count() != static_cast<std::uint64_t>(n_layers_)) {
    fail(suffix, std::to_string(n_layers_) + " values (one per layer)",
         std::to_string(value->count()));
  }
  if (value->element_type() == GgufType::kBool) return file_.get_bool_array(name);
  std::vector<bool> flags;
  for (const std::uint64_t number : file_.get_u64_array(name)) {
    if (number > 1) fail(suffix, "zeros and ones", std::to_string(number));
    flags.push_back(number == 1);
  }
  return flags;
}

double HparamReader::get_float(std::string_view suffix, double fallback, double min,
                               double max) const {
  const std::string name = key(suffix);
  const GgufValue* found = file_.find(name);
  if (found == nullptr) return fallback;
  if (found->is_array()) unsupported(suffix, "an array in place of one number");
  // require_f32 words the error for a wrong type; the value itself is read in full width.
  (void)file_.require_f32(name);
  const double value = found->as_f64();
  if (!std::isfinite(value) || value < min || value > max) {
    fail(suffix, "from " + number_text(min) + " to " + number_text(max), number_text(value));
  }
  return value;
}

double HparamReader::require_float(std::string_view suffix, double min, double max) const {
  (void)file_.require(key(suffix));
  return get_float(suffix, 0, min, max);
}

bool HparamReader::get_bool(std::string_view suffix, bool fallback) const {
  return file_.get_bool(key(suffix), fallback);
}

std::string_view HparamReader::get_string(std::string_view suffix,
                                          std::string_view fallback) const {
  return file_.get_string(key(suffix), fallback);
}

}  // namespace specdec
