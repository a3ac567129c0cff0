#include "sampling/params.h"

#include <cmath>
#include <limits>
#include <sstream>
#include <string>

#include "base/error.h"

namespace specdec {
namespace {

template <typename T>
[[noreturn]] void out_of_range(const char* option, const T& value, const char* range) {
  std::ostringstream text;
  text << option << " must be " << range << ", got " << value;
  throw_invalid(text.str());
}

}  // namespace

void SamplingParams::validate() const {
  const double kInf = std::numeric_limits<double>::infinity();
  // Written so that NaN fails too.
  if (!(temperature >= 0.0 && temperature < kInf)) {
    out_of_range("temperature", temperature, "a finite number >= 0");
  }
  if (top_k < 0) out_of_range("top_k", top_k, ">= 0 (0 is off)");
  if (!(top_p > 0.0 && top_p <= 1.0)) out_of_range("top_p", top_p, "in (0, 1] (1 is off)");
  if (!(min_p >= 0.0 && min_p < 1.0)) out_of_range("min_p", min_p, "in [0, 1) (0 is off)");
  if (!(noise_scale >= 0.0 && noise_scale <= 100.0)) {
    out_of_range("noise_scale", noise_scale, "in [0, 100] (0 is off)");
  }
  if (!(repetition_penalty > 0.0 && repetition_penalty <= 100.0)) {
    out_of_range("repetition_penalty", repetition_penalty, "in (0, 100] (1 is off)");
  }
  if (!(presence_penalty >= -100.0 && presence_penalty <= 100.0)) {
    out_of_range("presence_penalty", presence_penalty, "in [-100, 100] (0 is off)");
  }
  if (!(frequency_penalty >= -100.0 && frequency_penalty <= 100.0)) {
    out_of_range("frequency_penalty", frequency_penalty, "in [-100, 100] (0 is off)");
  }
  if (penalty_last_n < -1) {
    out_of_range("penalty_last_n", penalty_last_n, ">= -1 (-1: the whole prefix, 0: off)");
  }
  for (const auto& [token, bias] : logit_bias) {
    if (token < 0) out_of_range("logit_bias token id", token, ">= 0");
    if (std::isnan(bias) || bias == std::numeric_limits<float>::infinity()) {
      out_of_range("logit_bias value", bias, "a finite number or -infinity");
    }
  }
}

}  // namespace specdec
