// The first layers of a model and its head as a draft model, in the target's own cache: what the
// target holds they hold too, and what they draft the target continues.
#pragma once

#include <span>

#include "decode/token_scorer.h"
#include "engine/model_scorer.h"

namespace specdec {

class LayerSkipScorer final : public TokenScorer {
 public:
  // Throws Error(kInvalidArgument) unless 1 <= n_layers < the target's.
  LayerSkipScorer(ModelScorer& target, int n_layers);

  [[nodiscard]] int n_layers() const { return n_layers_; }
  [[nodiscard]] int vocab_size() const override { return target_.vocab_size(); }
  [[nodiscard]] int n_ctx() const override { return target_.n_ctx(); }
  [[nodiscard]] int length() const override { return length_; }
  // Tokens at positions the target holds must be the target's own; they cost nothing.
  void forward(const Batch& batch) override;
  [[nodiscard]] std::span<const float> logits(int row) const override {
    return target_.draft_results().logits(row - n_skipped_);
  }
  [[nodiscard]] TokenId argmax(int row) const override {
    return target_.draft_results().argmax(row - n_skipped_);
  }
  [[nodiscard]] std::span<const TopToken> top(int row) const override {
    return target_.draft_results().top(row - n_skipped_);
  }
  [[nodiscard]] float log_sum_exp(int row) const override {
    return target_.draft_results().log_sum_exp(row - n_skipped_);
  }
  void truncate(int n) override;
  void keep_path(std::span<const std::int32_t> rows) override;

 private:
  ModelScorer& target_;
  int n_layers_;
  int length_ = 0;
  int n_skipped_ = 0;  // rows of the last forward that the target held
};

}  // namespace specdec
