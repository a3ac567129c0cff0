// A head that drafts for a target, with one cache, as its drafter sees it.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "decode/feature_scorer.h"
#include "engine/loaded_model.h"
#include "kv/kv_cache.h"
#include "model/runner.h"

namespace specdec {

class HeadScorer final : public FeatureScorer {
 public:
  // The head goes with the target: require_pair() has been asked. n_ctx: rows the cache may hold.
  HeadScorer(std::shared_ptr<const LoadedModel> head, std::shared_ptr<const LoadedModel> target,
             KvCache cache, int n_ctx);

  // A scorer over a fork of the cache.
  [[nodiscard]] std::unique_ptr<HeadScorer> fork();

  [[nodiscard]] int vocab_size() const override { return n_tokens_; }
  [[nodiscard]] int n_ctx() const override { return n_ctx_; }
  [[nodiscard]] int length() const override { return cache_.length(); }
  void forward(const Batch& batch) override;
  void truncate(int n) override;
  void keep_path(std::span<const std::int32_t> rows) override;

  // Of the target's tokens.
  [[nodiscard]] std::span<const float> logits(int row) const override;
  [[nodiscard]] TokenId argmax(int row) const override;
  [[nodiscard]] std::span<const TopToken> top(int row) const override;
  [[nodiscard]] float log_sum_exp(int row) const override {
    return runner_.results().log_sum_exp(row);
  }

  [[nodiscard]] std::span<const std::int32_t> target_taps() const override;
  [[nodiscard]] std::size_t n_tapped() const override;
  [[nodiscard]] std::size_t n_features() const override;
  void fuse(std::span<const float> taps, int n_rows, std::span<float> features) override;
  [[nodiscard]] std::span<const float> feature(int row) const override {
    return runner_.results().hidden(row);
  }

  [[nodiscard]] KvCache& kv() noexcept { return cache_; }
  // Asked inside forward passes; null: never.
  void set_cancel(const std::atomic<bool>* cancel) { cancel_ = cancel; }
  [[nodiscard]] std::size_t scratch_bytes() const noexcept { return runner_.n_bytes(); }

 private:
  [[nodiscard]] const DraftHeadConfig& config() const;

  std::shared_ptr<const LoadedModel> head_, target_;
  KvCache cache_;
  int n_ctx_;
  int n_tokens_;
  Runner runner_;
  int first_row_ = 0;  // cache length before the last forward
  const std::atomic<bool>* cancel_ = nullptr;
  mutable std::vector<TopToken> top_;  // of the row asked for last
  mutable std::vector<float> logits_;  // likewise, [n_tokens_]
};

}  // namespace specdec
