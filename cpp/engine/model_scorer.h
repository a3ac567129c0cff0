// A model with one cache, as the decoding loop sees it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/token.h"
#include "decode/token_scorer.h"
#include "engine/loaded_model.h"
#include "engine/reading_pace.h"
#include "kv/kv_cache.h"
#include "model/runner.h"

namespace specdec {

class ModelScorer final : public TokenScorer {
 public:
  // n_ctx: rows the cache may hold.
  ModelScorer(std::shared_ptr<const LoadedModel> model, KvCache cache, int n_ctx);

  // A scorer over a fork of the cache.
  [[nodiscard]] std::unique_ptr<ModelScorer> fork();

  [[nodiscard]] int vocab_size() const override;
  [[nodiscard]] int n_ctx() const override { return n_ctx_; }
  [[nodiscard]] int length() const override { return length_; }
  [[nodiscard]] int max_tree_rows() const override;
  void forward(const Batch& batch) override;
  [[nodiscard]] int max_steps() const override;
  int forward_steps(const Batch& batch, int n_steps) override;
  // When all of both models is on the same device.
  [[nodiscard]] bool can_follow(const TokenScorer& draft) const override;
  void issue(TokenScorer& draft, Steps& steps, const Batch& batch,
             std::span<const std::int32_t> picks) override;
  void finish() override;
  void keep(int n_rows) override;
  [[nodiscard]] std::span<const float> logits(int row) const override {
    return runner_.results().logits(row - first_result_row_);
  }
  [[nodiscard]] TokenId argmax(int row) const override {
    return runner_.results().argmax(row - first_result_row_);
  }
  [[nodiscard]] std::span<const TopToken> top(int row) const override {
    return runner_.results().top(row - first_result_row_);
  }
  [[nodiscard]] float log_sum_exp(int row) const override {
    return runner_.results().log_sum_exp(row - first_result_row_);
  }
  [[nodiscard]] std::span<const float> taps(int row) const override;
  [[nodiscard]] Reading reading() const override { return runner_.results().reading(); }
  void truncate(int n) override;
  [[nodiscard]] int reachable(int n) const override;
  void set_tokens(const std::vector<TokenId>* tokens) override { tokens_ = tokens; }
  void keep_path(std::span<const std::int32_t> rows) override;

  // A pass that its owner runs over rows of several sequences: the cache, ready for n_rows behind
  // its content (errors as forward()), and afterwards the note that they count. Rows that were
  // drafted are dropped.
  [[nodiscard]] KvCache& lend(int n_rows);
  void take_back();
  // The cache with all of its content and nothing else: what was drafted is dropped, what is to be
  // fed again is fed.
  [[nodiscard]] const KvCache& settled();
  // Another cache for this model takes the place of its own.
  void adopt(KvCache cache);
  [[nodiscard]] KvCache& kv() noexcept { return cache_; }
  [[nodiscard]] const KvCache& kv() const noexcept { return cache_; }

  // Self-speculation: runs a chain behind the content and earlier drafted rows through the first
  // n_layers layers and the head. The rows stay in the cache, uncounted by length(); a forward()
  // that begins with the same tokens continues them in the other layers, anything else drops them.
  // Both give the bits of a whole pass. Results are in draft_results().
  void draft(const Batch& batch, int n_layers);
  [[nodiscard]] int n_drafted() const noexcept { return static_cast<int>(drafted_.size()); }
  void truncate_drafted(int n);
  [[nodiscard]] const Results& draft_results() const noexcept { return draft_runner_.results(); }
  [[nodiscard]] int n_layers() const;

  // Called a few times a second while a long batch is fed, with the cache's length; it may throw,
  // which ends the forward. The batch is cut into pieces for it; results are the same, batches
  // being invariant.
  using Poll = std::function<void(int length)>;
  void set_poll(Poll poll) { poll_ = std::move(poll); }
  // Asked inside forward passes; null: never.
  void set_cancel(const std::atomic<bool>* cancel) { cancel_ = cancel; }

  [[nodiscard]] std::size_t scratch_bytes() const noexcept {
    return runner_.n_bytes() + draft_runner_.n_bytes();
  }

 private:
  std::shared_ptr<const LoadedModel> model_;
  KvCache cache_;
  int length_;  // that count; the last ones may be missing in the cache until restore()
  const std::vector<TokenId>* tokens_ = nullptr;  // of them, or of more
  Runner runner_;
  int n_ctx_;
  const std::atomic<bool>* cancel_ = nullptr;
  Poll poll_;
  ReadingPace pace_;
  std::vector<TokenId> drafted_;       // rows behind length(), through draft_layers_ layers only
  std::vector<float> drafted_hidden_;  // [drafted_.size(), hidden_size] after them
  int draft_layers_ = 0;
  Runner draft_runner_;
  Runner restorer_;  // apart from the others, whose results may still be wanted
  // The pass that was issued and is not kept yet.
  struct Issued {
    ModelScorer* draft = nullptr;
    int draft_length = 0;  // before
    Steps* steps = nullptr;
    Batch batch;
    bool has_pass = false;
  };
  Issued issued_;
  int first_row_ = 0;              // cache length before the last forward
  int first_result_row_ = 0;       // row of the last forward that is row 0 of the results
  std::vector<float> piece_taps_;  // of the rows before that

  void check_room(int n_rows) const;
  void feed_drafted(Batch batch);
  // The cache goes back to n, or as near to it as it can; restore() feeds what is missing then.
  void shrink(int n);
  void restore();
  void run(const Batch& batch);
};

// Passes of a scorer (null: nothing) can be cancelled by this flag while it lives.
template <typename Scorer>
class CancelScope {
 public:
  CancelScope(Scorer* scorer, const std::atomic<bool>& cancel) : scorer_(scorer) {
    if (scorer_ != nullptr) scorer_->set_cancel(&cancel);
  }
  ~CancelScope() {
    if (scorer_ != nullptr) scorer_->set_cancel(nullptr);
  }
  CancelScope(const CancelScope&) = delete;
  CancelScope& operator=(const CancelScope&) = delete;

 private:
  Scorer* scorer_;
};

// Sets a scorer's poll function (null: nothing) while it lives.
class PollScope {
 public:
  PollScope(ModelScorer* scorer, ModelScorer::Poll poll) : scorer_(scorer) {
    if (scorer_ != nullptr) scorer_->set_poll(std::move(poll));
  }
  ~PollScope() {
    if (scorer_ != nullptr) scorer_->set_poll({});
  }
  PollScope(const PollScope&) = delete;
  PollScope& operator=(const PollScope&) = delete;

 private:
  ModelScorer* scorer_;
};

}  // namespace specdec
