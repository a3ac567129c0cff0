#include "sampling/params.h"

#include <cmath>
#include <limits>
#include <sstream>
#include <string>

#include "base/error.h"
#include "base/option_spec.h"

namespace specdec {
namespace {

template <typename T>
[[noreturn]] void out_of_range(const char* option, const T& value, const std::string& range) {
  std::ostringstream text;
  text.precision(15);
  text << option << " must be " << range << ", got " << value;
  throw_invalid(text.str());
}

std::string range_of(const OptionSpec& spec) {
  std::ostringstream text;
  text.precision(15);
  text << "in " << (spec.open_min ? '(' : '[') << spec.min << ", " << spec.max
       << (spec.open_max ? ')' : ']');
  return text.str();
}

template <typename T>
void check(const OptionSpec& spec, T value) {
  if (!spec.allows(static_cast<double>(value))) out_of_range(spec.name, value, range_of(spec));
}

}  // namespace

void SamplingParams::validate() const {
  check(opt::kSamplingParamsTemperature, temperature);
  check(opt::kSamplingParamsTopK, top_k);
  check(opt::kSamplingParamsTopP, top_p);
  check(opt::kSamplingParamsMinP, min_p);
  check(opt::kSamplingParamsNoiseScale, noise_scale);
  check(opt::kSamplingParamsRepetitionPenalty, repetition_penalty);
  check(opt::kSamplingParamsPresencePenalty, presence_penalty);
  check(opt::kSamplingParamsFrequencyPenalty, frequency_penalty);
  check(opt::kSamplingParamsPenaltyLastN, penalty_last_n);
  for (const auto& [token, bias] : logit_bias) {
    if (token < 0) out_of_range("logit_bias token id", token, ">= 0");
    if (std::isnan(bias) || bias == std::numeric_limits<float>::infinity()) {
      out_of_range("logit_bias value", bias, "a finite number or -infinity");
    }
  }
}

}  // namespace specdec
