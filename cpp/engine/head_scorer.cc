#include "engine/head_scorer.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "base/error.h"
#include "model/model.h"

namespace specdec {

HeadScorer::HeadScorer(std::shared_ptr<const LoadedModel> head,
                       std::shared_ptr<const LoadedModel> target, KvCache cache, int n_ctx)
    : head_(std::move(head)),
      target_(std::move(target)),
      cache_(std::move(cache)),
      n_ctx_(n_ctx),
      n_tokens_(config().target_ids.empty() ? head_->model().config().n_head_tokens
                                            : target_->model().config().n_tokens),
      runner_(head_->model(), &target_->model()) {}

const DraftHeadConfig& HeadScorer::config() const { return head_->model().config().draft_head; }

std::unique_ptr<HeadScorer> HeadScorer::fork() {
  return std::make_unique<HeadScorer>(head_, target_, cache_.fork(), n_ctx_);
}

void HeadScorer::forward(const Batch& batch) {
  if (length() + static_cast<int>(batch.tokens.size()) > n_ctx_) {
    throw Error(ErrorCode::kContextFull, "the context of " + std::to_string(n_ctx_) +
                                             " tokens of the draft head holds " +
                                             std::to_string(length()) + ": no room for " +
                                             std::to_string(batch.tokens.size()) + " more");
  }
  const int before = length();
  runner_.forward(batch, cache_, cancel_);
  first_row_ = before;
}

void HeadScorer::truncate(int n) { cache_.truncate(n); }

void HeadScorer::keep_path(std::span<const std::int32_t> rows) {
  cache_.keep_path(first_row_, rows);
}

std::span<const float> HeadScorer::logits(int row) const {
  const std::span<const float> own = runner_.results().logits(row);
  const std::vector<TokenId>& ids = config().target_ids;
  if (ids.empty()) return own;
  logits_.assign(static_cast<std::size_t>(n_tokens_), -std::numeric_limits<float>::infinity());
  for (std::size_t i = 0; i < ids.size(); ++i) logits_[static_cast<std::size_t>(ids[i])] = own[i];
  return logits_;
}

TokenId HeadScorer::argmax(int row) const {
  const TokenId own = runner_.results().argmax(row);
  const std::vector<TokenId>& ids = config().target_ids;
  return ids.empty() || own < 0 ? own : ids[static_cast<std::size_t>(own)];
}

std::span<const TopToken> HeadScorer::top(int row) const {
  const std::span<const TopToken> own = runner_.results().top(row);
  const std::vector<TokenId>& ids = config().target_ids;
  if (ids.empty()) return own;
  top_.assign(own.begin(), own.end());
  for (TopToken& best : top_) {
    if (best.token >= 0) best.token = ids[static_cast<std::size_t>(best.token)];
  }
  return top_;
}

std::span<const std::int32_t> HeadScorer::target_taps() const { return config().target_layers; }

std::size_t HeadScorer::n_tapped() const { return static_cast<std::size_t>(config().tap_size()); }

std::size_t HeadScorer::n_features() const {
  return static_cast<std::size_t>(head_->model().config().hidden_size);
}

void HeadScorer::fuse(std::span<const float> taps, int n_rows, std::span<float> features) {
  runner_.fuse(taps, n_rows, features);
}

}  // namespace specdec
