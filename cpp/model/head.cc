// The output head, and what is read of it.
#include <cstring>
#include <string>

#include "model/pass.h"
#include "model/runner.h"

namespace specdec {

namespace {

void copy_rows(const float* rows, std::int64_t stride, int n_rows, std::span<float> to) {
  const std::size_t n = to.size() / static_cast<std::size_t>(n_rows);
  for (int r = 0; r < n_rows; ++r, rows += stride)
    std::memcpy(to.data() + static_cast<std::size_t>(r) * n, rows, n * sizeof(float));
}

}  // namespace

// Room for the results of the head.
void Runner::prepare_head(const Batch& batch, const Pass& pass) {
  const ModelConfig& config = model_.config();
  const int n_outputs = pass.n_outputs();
  const std::int64_t stride = padded_row(config.n_head_tokens);
  results_.top_k_ = batch.output == RowOutput::kTop ? batch.top_k : 1;
  results_.top_.resize(static_cast<std::size_t>(n_outputs) *
                       static_cast<std::size_t>(results_.top_k_));
  if (batch.output == RowOutput::kTop)
    results_.log_sum_exp_.resize(static_cast<std::size_t>(n_outputs));
  if (batch.output == RowOutput::kLogits || batch.keep_logits)
    (void)rows_of(results_.logits_, n_outputs, stride);
  results_.logits_stride_ = static_cast<std::size_t>(stride);
  results_.n_logits_ = static_cast<std::size_t>(config.n_head_tokens);
}

void Runner::run_head(const Batch& batch, const Pass& pass, const PassRows& rows) {
  const ModelConfig& config = model_.config();
  const PartWeights& w = model_.weights().model;
  check_cancel(rows.cancel);
  // Rows of a block that predicts further tokens are normed already.
  const bool normed = config.draft_head.next_tokens;
  const Norm norm{.kind = config.norm_kind,
                  .weight = w.vector(Part::kOutputNorm),
                  .bias = w.vector(Part::kOutputNormBias),
                  .epsilon = config.norm_epsilon};
  rows.backend.head(
      {.x = rows.hidden + pass.first_output_row * pass.hidden_stride,
       .x_stride = pass.hidden_stride,
       .n_rows = pass.n_rows - pass.first_output_row,
       .norm = normed ? Norm{} : norm,
       .weight =
           w.matrix(Part::kHead) != nullptr ? w.matrix(Part::kHead) : lent_->matrix(Part::kHead),
       .bias = w.vector(Part::kHeadBias),
       .n_tokens = config.n_head_tokens,
       .soft_cap = config.logit_cap,
       .blocks = batch.head_blocks,
       .top_k = results_.top_k_,
       .top = results_.top_.data(),
       .log_sum_exp = batch.output == RowOutput::kTop ? results_.log_sum_exp_.data() : nullptr,
       .logits = batch.output == RowOutput::kLogits || batch.keep_logits
                     ? results_.logits_.as<float>()
                     : nullptr,
       .logits_stride = static_cast<std::int64_t>(results_.logits_stride_)});
}

// What a block that predicts further tokens says: its next feature, and what its head reads.
void Runner::norm_said(const Pass& pass, const PassRows& rows) const {
  const ModelConfig& config = model_.config();
  float* const said = rows.hidden + pass.first_output_row * pass.hidden_stride;
  rows.backend.norm({.x = said,
                     .x_stride = pass.hidden_stride,
                     .n_rows = pass.n_rows - pass.first_output_row,
                     .n = config.hidden_size,
                     .norm = {.kind = config.norm_kind,
                              .weight = model_.weights().model.vector(Part::kOutputNorm),
                              .epsilon = config.norm_epsilon},
                     .dst = said,
                     .dst_stride = pass.hidden_stride});
}

// Taps of a head's target to its features.
void Runner::fuse(std::span<const float> taps, int n_rows, std::span<float> features) {
  const ModelConfig& config = model_.config();
  const PartWeights& w = model_.weights().model;
  const auto n_in = static_cast<std::size_t>(config.draft_head.tap_size());
  SPECDEC_CHECK(config.draft_head && taps.size() == n_in * static_cast<std::size_t>(n_rows));
  const std::int64_t stride = padded_row(config.draft_head.tap_size());
  const std::int64_t out_stride = padded_row(config.hidden_size);
  float* const rows = rows_of(work_.taps, n_rows, stride);
  float* const out = rows_of(results_.hidden_, n_rows, out_stride);
  results_.has_hidden_ = false;
  for (int r = 0; r < n_rows; ++r) {
    std::memcpy(rows + r * stride, taps.data() + static_cast<std::size_t>(r) * n_in,
                n_in * sizeof(float));
  }
  Norm norm;
  if (config.draft_head.next_tokens) {  // what the target's own output head reads
    const ModelConfig& target = lender_->config();
    model_.backend()->norm({.x = rows,
                            .x_stride = stride,
                            .n_rows = n_rows,
                            .n = config.hidden_size,
                            .norm = {.kind = target.norm_kind,
                                     .weight = lent_->vector(Part::kOutputNorm),
                                     .epsilon = target.norm_epsilon},
                            .dst = out,
                            .dst_stride = out_stride});
    copy_rows(out, out_stride, n_rows, features);
    return;
  }
  if (const float* const weight = w.vector(Part::kFuseNorm); weight != nullptr)
    norm = {.kind = config.norm_kind, .weight = weight, .epsilon = config.norm_epsilon};
  const LinearSegment segment{
      .weight = w.matrix(Part::kFuse), .dst = out, .dst_stride = out_stride};
  model_.backend()->linear({.x = rows,
                            .x_stride = stride,
                            .n_rows = n_rows,
                            .norm = norm,
                            .segments = std::span(&segment, 1)});
  copy_rows(out, out_stride, n_rows, features);
}

// Steps with finite logits. Whatever else is not finite is an error.
int Runner::check_head(const Batch& batch, const Pass& pass) {
  model_.check_whole();
  int n_done = pass.n_steps;
  for (int i = 0; i < pass.n_outputs(); ++i) {
    if (results_.top_[static_cast<std::size_t>(i * results_.top_k_)].token >= 0) continue;
    if (pass.n_steps > 1 && i > 0) {
      n_done = i;
      break;
    }
    const int row = bad_row_ = pass.first_output_row + i;
    throw Error(
        ErrorCode::kNumerical,
        model_.file()->path() + ": the logits after token " +
            std::to_string(batch.tokens[static_cast<std::size_t>(row)]) + " at position " +
            std::to_string(work_.positions[static_cast<std::size_t>(row)]) + " are not finite" +
            (model_.warnings().empty() ? ""
                                       : "; the file may be damaged (load with check_tensors)"));
  }
  results_.has_top_ = true;
  results_.has_log_sum_exp_ = batch.output == RowOutput::kTop;
  results_.has_logits_ = batch.output == RowOutput::kLogits || batch.keep_logits;
  return n_done;
}

}  // namespace specdec
