// A toy model for tests: logits are a hash of the whole path, so that any mistake in handling the
// cache changes the text. Strict: it refuses what the TokenScorer contract does not allow.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "decode/token_scorer.h"
#include "sampling/logprobs.h"

namespace specdec::testing {

struct ToySpec {
  int vocab_size = 8;
  int n_ctx = 256;
  std::uint64_t seed = 1;
  double scale = 3.0;          // logits are uniform in [-scale, scale]
  int order = 0;               // > 0: logits depend on the last `order` tokens only
  int levels = 0;              // > 0: logits take so many values only, so that ties are common
  std::uint64_t mix_seed = 0;  // another toy's seed ...
  double mix = 0.0;            // ... whose logits make up this share of ours (a good draft: near 1)
  int chain_steps = 1;         // that it makes at once
  bool follows = false;        // can feed a draft unseen
  int max_tree_rows = kMaxBatchRows;
};

class ToyScorer final : public TokenScorer {
 public:
  explicit ToyScorer(const ToySpec& spec) : spec_(spec) {}

  // 1-based forward at which something happens; 0: never.
  int fail_at = 0;
  ErrorCode fail_code = ErrorCode::kResource;
  int nan_at = 0;
  int cancel_at = 0;
  std::atomic<bool> cancel_flag{false};
  // What was asked of it.
  int n_forwards = 0;
  std::vector<int> batch_sizes;               // of chains their first rows only
  std::vector<int> chain_sizes;               // steps asked for
  std::vector<std::pair<int, int>> followed;  // rows fed behind a chain, and those that counted

  [[nodiscard]] static std::uint64_t mix64(std::uint64_t x) {
    x += 0x9E3779B97F4A7C15ULL;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
  }

  [[nodiscard]] std::vector<float> logits_after(const std::vector<TokenId>& path) const {
    std::vector<float> row = own_logits(path, spec_.seed);
    if (spec_.mix > 0.0) {
      const std::vector<float> other = own_logits(path, spec_.mix_seed);
      for (std::size_t i = 0; i < row.size(); ++i) {
        row[i] = static_cast<float>(spec_.mix * static_cast<double>(other[i]) +
                                    (1.0 - spec_.mix) * static_cast<double>(row[i]));
      }
    }
    return row;
  }

  int vocab_size() const override { return spec_.vocab_size; }
  int n_ctx() const override { return spec_.n_ctx; }
  int length() const override { return static_cast<int>(cache_.size()); }
  [[nodiscard]] const std::vector<TokenId>& cache() const { return cache_; }

  void forward(const Batch& batch) override {
    ++n_forwards;
    if (n_forwards == cancel_at) cancel_flag = true;
    if (n_forwards == fail_at)
      throw Error(fail_code, "toy failure at forward " + std::to_string(fail_at));
    const int n = static_cast<int>(batch.tokens.size());
    require(n > 0, "an empty batch");
    require(n <= (is_chain(batch.parents) ? kMaxBatchRows : spec_.max_tree_rows), "too many rows");
    require(batch.parents.empty() || batch.parents.size() == batch.tokens.size(),
            "parents of another size");
    if (length() + n > spec_.n_ctx) {
      throw Error(ErrorCode::kContextFull,
                  "toy context of " + std::to_string(spec_.n_ctx) + " is full");
    }
    batch_sizes.push_back(n);
    base_ = length();
    tokens_.assign(batch.tokens.begin(), batch.tokens.end());
    parents_.clear();
    rows_.assign(static_cast<std::size_t>(n), {});
    first_output_ = batch.first_output_row;
    require(batch.taps.empty() || batch.taps.size() == 1, "taps that it does not have");
    tapped_ = !batch.taps.empty();
    output_ = batch.output;
    top_k_ = batch.top_k;
    for (int r = 0; r < n; ++r) {
      const int parent = batch.parents.empty() ? r - 1 : batch.parents[static_cast<std::size_t>(r)];
      require(parent >= -1 && parent < r, "a parent that is not above its row");
      const TokenId token = tokens_[static_cast<std::size_t>(r)];
      require(token >= 0 && token < spec_.vocab_size, "a token outside the vocabulary");
      parents_.push_back(parent);
      if (r >= first_output_ && output_ != RowOutput::kNone) {
        std::vector<TokenId> path;
        for (int at = r; at >= 0; at = parents_[static_cast<std::size_t>(at)]) {
          path.insert(path.begin(), tokens_[static_cast<std::size_t>(at)]);
        }
        path.insert(path.begin(), cache_.begin(), cache_.end());
        rows_[static_cast<std::size_t>(r)] = output_after(path, batch);
      }
    }
    cache_.insert(cache_.end(), tokens_.begin(), tokens_.end());
    fresh_ = true;
  }

  int max_tree_rows() const override { return spec_.max_tree_rows; }
  int max_steps() const override { return spec_.chain_steps; }
  int forward_steps(const Batch& batch, int n_steps) override {
    const int n = static_cast<int>(batch.tokens.size());
    require(n_steps >= 1 && n_steps <= spec_.chain_steps, "more steps than it makes");
    require(batch.parents.empty() && batch.first_output_row == n - 1, "a chain that is none");
    require(batch.output == RowOutput::kArgmax || batch.output == RowOutput::kTop,
            "a chain without best tokens");
    if (length() + n + n_steps - 1 > spec_.n_ctx)
      throw Error(ErrorCode::kContextFull, "the chain is too long for the toy's context");
    forward(batch);
    chain_sizes.push_back(n_steps);
    for (int step = 1; step < n_steps; ++step) {
      const TokenId next = argmax(n + step - 2);
      if (next < 0 || n_forwards + 1 == fail_at) return step;
      ++n_forwards;
      if (n_forwards == cancel_at) cancel_flag = true;
      std::vector<TokenId> path = cache_;
      path.push_back(next);
      rows_.push_back(output_after(path, batch));
      if (argmax(n + step - 1) < 0) {
        rows_.pop_back();
        --n_forwards;  // the step was not made
        return step;
      }
      cache_.push_back(next);
      tokens_.push_back(next);
      parents_.push_back(n + step - 2);
    }
    return n_steps;
  }

  bool can_follow(const TokenScorer& draft) const override {
    return spec_.follows && dynamic_cast<const ToyScorer*>(&draft) != nullptr;
  }
  void issue(TokenScorer& draft, Steps& steps, const Batch& batch,
             std::span<const std::int32_t> picks) override {
    require(can_follow(draft) && &draft != this, "steps it cannot follow");
    require(picks.size() == batch.tokens.size() && picks[0] == -1, "picks that are none");
    steps.n_done = 0;
    try {
      steps.n_done = draft.forward_steps(steps.batch, steps.n_steps);
    } catch (const Error&) {
      steps.error = std::current_exception();
    }
    steps.share = 0.5;
    std::vector<TokenId> tokens(batch.tokens.begin(), batch.tokens.end());
    const int n_best = steps.batch.n_best();
    for (std::size_t r = 0; r < tokens.size(); ++r) {
      const int step = picks[r] / n_best;
      require(step < steps.n_steps, "a pick behind the steps");
      if (picks[r] < 0 || step >= steps.n_done) continue;
      const int row = static_cast<int>(steps.batch.tokens.size()) - 1 + step;
      const int rank = picks[r] % n_best;
      const TokenId token =
          rank == 0 ? draft.argmax(row) : draft.top(row)[static_cast<std::size_t>(rank)].token;
      tokens[r] = token >= 0 && token < spec_.vocab_size ? token : 0;
    }
    Batch seen = batch;
    seen.tokens = tokens;
    forward(seen);
    // Nothing counts before keep().
    cache_.resize(static_cast<std::size_t>(base_));
    issued_ = &steps;
    picks_.assign(picks.begin(), picks.end());
  }
  void finish() override { require(issued_ != nullptr, "a wait for nothing"); }
  void keep(int n) override {
    require(issued_ != nullptr, "rows to keep of nothing");
    const Steps& steps = *std::exchange(issued_, nullptr);
    int n_known = 0;
    for (const std::int32_t pick : picks_) n_known += pick < 0 ? 1 : 0;
    require(n >= n_known && n <= static_cast<int>(tokens_.size()), "a number of rows that is none");
    for (int r = 0; r < n; ++r)
      require(
          picks_[static_cast<std::size_t>(r)] / steps.batch.n_best() < std::max(steps.n_done, 1),
          "rows of steps that were not made");
    followed.emplace_back(static_cast<int>(tokens_.size()), n);
    tokens_.resize(static_cast<std::size_t>(n));
    parents_.resize(static_cast<std::size_t>(n));
    rows_.resize(static_cast<std::size_t>(n));
    cache_.insert(cache_.end(), tokens_.begin(), tokens_.end());
  }

  std::span<const float> logits(int row) const override {
    require(output_ == RowOutput::kLogits, "logits that were not asked for");
    return checked_row(row);
  }
  TokenId argmax(int row) const override {
    const std::vector<float>& values = checked_row(row);
    std::size_t best = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (std::isnan(values[i])) return -1;
      if (values[i] > values[best]) best = i;
    }
    return static_cast<TokenId>(best);
  }
  std::span<const TopToken> top(int row) const override {
    require(output_ == RowOutput::kTop, "best tokens that were not asked for");
    const std::vector<float>& values = checked_row(row);
    top_.clear();
    if (argmax(row) < 0) return top_;
    for (const TokenId token : top_k_tokens(values, top_k_)) {
      if (std::isfinite(values[static_cast<std::size_t>(token)]))
        top_.push_back({token, values[static_cast<std::size_t>(token)]});
    }
    return top_;
  }
  float log_sum_exp(int row) const override {
    require(output_ == RowOutput::kTop, "a sum that was not asked for");
    double sum = 0;
    for (const float x : checked_row(row)) sum += std::exp(static_cast<double>(x));
    return static_cast<float>(std::log(sum));
  }
  // Of a row: its position, its token, and that the target said it.
  std::span<const float> taps(int row) const override {
    require(tapped_, "a request for taps that were not asked for");
    int depth = 0;
    for (int at = row; at >= 0; at = parents_.at(static_cast<std::size_t>(at))) ++depth;
    tap_ = {static_cast<float>(base_ + depth - 1),
            static_cast<float>(tokens_.at(static_cast<std::size_t>(row))), 1.0F};
    return tap_;
  }
  void truncate(int n) override {
    require(n >= 0 && n <= length(), "truncate beyond the length");
    cache_.resize(static_cast<std::size_t>(n));
    fresh_ = fresh_ && n >= base_ + static_cast<int>(tokens_.size());
  }
  void keep_path(std::span<const std::int32_t> rows) override {
    require(fresh_, "keep_path without a fresh forward");
    int last = -1;
    cache_.resize(static_cast<std::size_t>(base_));
    for (const std::int32_t row : rows) {
      require(row >= 0 && row < static_cast<int>(tokens_.size()), "a row out of range");
      require(parents_[static_cast<std::size_t>(row)] == last, "rows that are no path");
      cache_.push_back(tokens_[static_cast<std::size_t>(row)]);
      last = row;
    }
    fresh_ = false;
  }

 private:
  static void require(bool ok, const char* what) {
    if (!ok) throw std::logic_error(std::string("toy scorer was given ") + what);
  }
  const std::vector<float>& checked_row(int row) const {
    require(
        output_ != RowOutput::kNone && row >= first_output_ && row < static_cast<int>(rows_.size()),
        "a request for a row without output");
    return rows_[static_cast<std::size_t>(row)];
  }
  std::vector<float> output_after(const std::vector<TokenId>& path, const Batch& batch) const {
    std::vector<float> row = logits_after(path);
    for (int t = 0; t < spec_.vocab_size && !batch.head_blocks.empty(); ++t) {
      if (!std::binary_search(batch.head_blocks.begin(), batch.head_blocks.end(), t / kHeadBlock))
        row[static_cast<std::size_t>(t)] = -std::numeric_limits<float>::infinity();
    }
    if (n_forwards == nan_at) row[0] = std::nanf("");
    return row;
  }
  std::vector<float> own_logits(const std::vector<TokenId>& path, std::uint64_t seed) const {
    std::uint64_t hash = mix64(seed);
    const std::size_t n = path.size();
    const std::size_t first = spec_.order > 0 && n > static_cast<std::size_t>(spec_.order)
                                  ? n - static_cast<std::size_t>(spec_.order)
                                  : 0;
    for (std::size_t i = first; i < n; ++i)
      hash = mix64(hash ^ static_cast<std::uint64_t>(path[i] + 1));
    std::vector<float> row(static_cast<std::size_t>(spec_.vocab_size));
    for (std::size_t i = 0; i < row.size(); ++i) {
      double u = static_cast<double>(mix64(hash + i * 0x632BE59BD9B4E019ULL) >> 11) * 0x1.0p-53;
      if (spec_.levels > 0) u = std::floor(u * spec_.levels) / spec_.levels;
      row[i] = static_cast<float>(spec_.scale * (2.0 * u - 1.0));
    }
    return row;
  }

  ToySpec spec_;
  std::vector<TokenId> cache_;
  const Steps* issued_ = nullptr;  // of a pass that is not kept yet
  std::vector<std::int32_t> picks_;
  // The last forward.
  int base_ = 0;
  bool fresh_ = false;
  std::vector<TokenId> tokens_;
  std::vector<std::int32_t> parents_;
  std::vector<std::vector<float>> rows_;
  int first_output_ = 0;
  RowOutput output_ = RowOutput::kNone;
  int top_k_ = 1;
  bool tapped_ = false;
  mutable std::vector<float> tap_;
  mutable std::vector<TopToken> top_;
};

}  // namespace specdec::testing
