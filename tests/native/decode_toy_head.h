// A toy head: the draft toy behind rows of features. A feature tells its position, the token there
// and who said it, so that the head can refuse rows that are not those of its text.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "decode/feature_scorer.h"
#include "decode_toy.h"

namespace specdec::testing {

class ToyHead final : public FeatureScorer {
 public:
  // known: the tokens that it can draft; empty: all.
  ToyHead(ToyScorer& inner, std::vector<TokenId> known) : inner_(inner), known_(std::move(known)) {}

  static constexpr std::int32_t kTap = 2;
  static constexpr std::size_t kWidth = 3;

  // The tokens at the positions of its rows; every row must be one that the target said.
  [[nodiscard]] std::vector<TokenId> text() const {
    for (const bool own : own_)
      if (own) throw std::logic_error("the toy head keeps a row of a draft");
    std::vector<TokenId> tokens = inner_.cache();
    tokens.resize(own_.size());
    return tokens;
  }

  int vocab_size() const override { return inner_.vocab_size(); }
  int n_ctx() const override { return inner_.n_ctx() - 1; }
  int length() const override { return static_cast<int>(own_.size()); }

  void forward(const Batch& batch) override {
    const std::size_t n = batch.tokens.size();
    require(batch.hidden.size() == n * kWidth, "features of another size");
    require(batch.parents.empty(), "a tree");
    std::vector<TokenId> tokens;
    if (own_.empty()) {
      first_position_ = at(batch, 0, 0);
      tokens.push_back(at(batch, 0, 1));
    }
    for (std::size_t r = 0; r < n; ++r) {
      const int position = length() + static_cast<int>(r);
      require(at(batch, r, 0) == first_position_ + position, "a feature of another position");
      const TokenId before = r > 0             ? batch.tokens[r - 1]
                             : !tokens.empty() ? tokens[0]
                                               : inner_.cache().back();
      require(at(batch, r, 1) == before, "a feature of another token");
      tokens.push_back(batch.tokens[r]);
    }
    shift_ = own_.empty() ? 1 : 0;
    Batch all = batch;
    all.tokens = tokens;
    all.hidden = {};
    all.keep_hidden = false;
    all.first_output_row += shift_;
    output_ = batch.output;
    top_k_ = static_cast<std::size_t>(batch.top_k);
    if (!known_.empty() && output_ == RowOutput::kArgmax) all.output = RowOutput::kTop;
    if (!known_.empty()) all.top_k = inner_.vocab_size();
    inner_.forward(all);
    for (std::size_t r = 0; r < n; ++r) own_.push_back(at(batch, r, 2) == 0);
    fed_.assign(batch.tokens.begin(), batch.tokens.end());
    base_ = length() - static_cast<int>(n);
  }

  std::span<const float> logits(int row) const override {
    const std::span<const float> all = inner_.logits(row + shift_);
    if (known_.empty()) return all;
    logits_.assign(all.size(), -std::numeric_limits<float>::infinity());
    for (const TokenId token : known_)
      logits_[static_cast<std::size_t>(token)] = all[static_cast<std::size_t>(token)];
    return logits_;
  }
  TokenId argmax(int row) const override {
    if (known_.empty() || inner_.argmax(row + shift_) < 0) return inner_.argmax(row + shift_);
    if (output_ == RowOutput::kTop) return top(row)[0].token;
    return output_ == RowOutput::kLogits ? top_k_tokens(logits(row), 1)[0] : known_argmax(row);
  }
  std::span<const TopToken> top(int row) const override {
    const std::span<const TopToken> all = inner_.top(row + shift_);
    if (known_.empty()) return all;
    top_.clear();
    for (const TopToken& best : all) {
      if (std::find(known_.begin(), known_.end(), best.token) != known_.end()) top_.push_back(best);
    }
    return std::span<const TopToken>(top_).first(std::min(top_.size(), top_k_));
  }
  float log_sum_exp(int row) const override {
    double sum = 0;
    if (known_.empty()) return inner_.log_sum_exp(row + shift_);
    for (const TopToken& best : top(row)) sum += std::exp(static_cast<double>(best.logit));
    return static_cast<float>(std::log(sum));
  }
  void truncate(int n) override {
    require(n >= 0 && n <= length(), "truncate beyond the length");
    inner_.truncate(n == 0 ? 0 : n + 1);
    own_.resize(static_cast<std::size_t>(n));
  }
  void keep_path(std::span<const std::int32_t>) override { require(false, "a path to keep"); }

  std::span<const std::int32_t> target_taps() const override { return {&kTap, 1}; }
  std::size_t n_tapped() const override { return kWidth; }
  std::size_t n_features() const override { return kWidth; }
  void fuse(std::span<const float> taps, int n_rows, std::span<float> features) override {
    require(
        taps.size() == static_cast<std::size_t>(n_rows) * kWidth && taps.size() == features.size(),
        "taps of another size");
    std::copy(taps.begin(), taps.end(), features.begin());
  }
  std::span<const float> feature(int row) const override {
    feature_ = {static_cast<float>(first_position_ + base_ + row + 1),
                static_cast<float>(fed_.at(static_cast<std::size_t>(row))), 0.0F};
    return feature_;
  }

 private:
  [[nodiscard]] TokenId known_argmax(int row) const {
    for (const TopToken& best : inner_.top(row + shift_)) {
      if (std::find(known_.begin(), known_.end(), best.token) != known_.end()) return best.token;
    }
    return -1;
  }
  static void require(bool ok, const char* what) {
    if (!ok) throw std::logic_error(std::string("toy head was given ") + what);
  }
  static int at(const Batch& batch, std::size_t row, std::size_t i) {
    return static_cast<int>(batch.hidden[row * kWidth + i]);
  }

  ToyScorer& inner_;
  std::vector<TokenId> known_;
  RowOutput output_ = RowOutput::kNone;
  std::size_t top_k_ = 1;
  mutable std::vector<float> logits_;
  mutable std::vector<TopToken> top_;
  std::vector<bool> own_;  // rows whose feature the head said
  std::vector<TokenId> fed_;
  int first_position_ = 0;
  int base_ = 0, shift_ = 0;
  mutable std::vector<float> feature_;
};

}  // namespace specdec::testing
