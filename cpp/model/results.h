// What a forward pass leaves behind. Grown on demand, never shrunk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/rows.h"

namespace specdec {

class Results final : public RowResults {
 public:
  // Of the last forward, for row r of its batch, first_output_row <= r < n_rows. They live until
  // the next forward of the same Runner. Error(kInvalidArgument) for a row or kind that was not
  // asked for.
  [[nodiscard]] std::span<const float> logits(int row) const override;
  [[nodiscard]] TokenId argmax(int row) const override;
  // [top_k] best first, fewer when the head computed fewer tokens.
  [[nodiscard]] std::span<const TopToken> top(int row) const override;
  [[nodiscard]] float log_sum_exp(int row) const override;
  [[nodiscard]] std::span<const float> hidden(int row) const;  // [hidden_size]
  [[nodiscard]] std::span<const float> taps(int row) const override;

  [[nodiscard]] Reading reading() const override { return reading_; }

  [[nodiscard]] std::size_t n_bytes() const noexcept;

 private:
  friend class Runner;

  [[nodiscard]] int output_index(int row, bool available, const char* what) const;

  // Floats, rows padded to cache lines.
  AlignedBuffer hidden_;            // [n_rows, hidden_size] the residual stream
  AlignedBuffer taps_;              // [n_tapped_, n_tap_], rows not padded
  AlignedBuffer logits_;            // [n_outputs, n_tokens]
  std::vector<TopToken> top_;       // [n_outputs, top_k_]
  std::vector<float> log_sum_exp_;  // [n_outputs]

  int n_rows_ = 0;
  int first_output_row_ = 0;
  bool has_logits_ = false, has_top_ = false, has_log_sum_exp_ = false, has_hidden_ = false;
  Reading reading_;
  int top_k_ = 1;
  std::size_t logits_stride_ = 0, hidden_stride_ = 0;
  std::size_t n_logits_ = 0, n_hidden_ = 0;
  int n_tapped_ = 0;       // rows
  std::size_t n_tap_ = 0;  // floats of each
};

}  // namespace specdec
