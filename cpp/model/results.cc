#include "model/results.h"

#include <string>

#include "base/error.h"

namespace specdec {

int Results::output_index(int row, bool available, const char* what) const {
  if (!available) throw_invalid(std::string("the last forward computed no ") + what);
  if (row < first_output_row_ || row >= n_rows_) {
    throw_invalid("output row " + std::to_string(row) + " is not in [" +
                  std::to_string(first_output_row_) + ", " + std::to_string(n_rows_) + ")");
  }
  return row - first_output_row_;
}

std::span<const float> Results::logits(int row) const {
  const auto index = static_cast<std::size_t>(output_index(row, has_logits_, "logits"));
  return {logits_.as<float>() + index * logits_stride_, n_logits_};
}

std::span<const TopToken> Results::top(int row) const {
  const auto index = static_cast<std::size_t>(output_index(row, has_top_, "best tokens"));
  const auto k = static_cast<std::size_t>(top_k_);
  std::span<const TopToken> top(top_.data() + index * k, k);
  while (!top.empty() && top.back().token < 0) top = top.first(top.size() - 1);
  return top;
}

TokenId Results::argmax(int row) const {
  const std::span<const TopToken> best = top(row);
  return best.empty() ? -1 : best[0].token;
}

float Results::log_sum_exp(int row) const {
  return log_sum_exp_[static_cast<std::size_t>(
      output_index(row, has_log_sum_exp_, "sum of exponentials"))];
}

std::span<const float> Results::hidden(int row) const {
  (void)output_index(row, has_hidden_, "hidden states");
  return {hidden_.as<float>() + static_cast<std::size_t>(row) * hidden_stride_, n_hidden_};
}

std::span<const float> Results::taps(int row) const {
  if (n_tapped_ == 0) throw_invalid("the last forward tapped no layers");
  if (row < 0 || row >= n_tapped_) {
    throw_invalid("tapped row " + std::to_string(row) + " is not in [0, " +
                  std::to_string(n_tapped_) + ")");
  }
  return {taps_.as<float>() + static_cast<std::size_t>(row) * n_tap_, n_tap_};
}

std::size_t Results::n_bytes() const noexcept {
  return hidden_.size() + logits_.size() + taps_.size();
}

}  // namespace specdec
