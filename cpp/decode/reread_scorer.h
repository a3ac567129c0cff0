// A scorer without a cache: each pass that somebody looks at reads everything before it again.
#pragma once

#include <cstdint>
#include <vector>

#include "decode/token_scorer.h"

namespace specdec {

// What a cache would hold is only a list of tokens here. Rows being the same however they are
// computed, results are those of the inner scorer with its cache; they only take longer. Rows
// without outputs are noted and not fed: the next pass reads them.
class RereadScorer final : public TokenScorer {
 public:
  // The inner one belongs to this, and is empty between passes, for others that share its cache.
  explicit RereadScorer(TokenScorer& inner) : inner_(inner) {}

  // Tokens that passes have read again since clear().
  [[nodiscard]] std::int64_t n_reread() const { return n_reread_; }
  void clear();

  [[nodiscard]] int vocab_size() const override { return inner_.vocab_size(); }
  [[nodiscard]] int n_ctx() const override { return inner_.n_ctx(); }
  [[nodiscard]] int length() const override { return static_cast<int>(tokens_.size()); }
  [[nodiscard]] bool rereads() const override { return true; }
  [[nodiscard]] int max_tree_rows() const override { return inner_.max_tree_rows(); }
  void forward(const Batch& batch) override;
  [[nodiscard]] std::span<const float> logits(int row) const override {
    return inner_.logits(row + shift_);
  }
  [[nodiscard]] TokenId argmax(int row) const override { return inner_.argmax(row + shift_); }
  [[nodiscard]] std::span<const TopToken> top(int row) const override {
    return inner_.top(row + shift_);
  }
  [[nodiscard]] float log_sum_exp(int row) const override {
    return inner_.log_sum_exp(row + shift_);
  }
  void truncate(int n) override;
  void keep_path(std::span<const std::int32_t> rows) override;

 private:
  void read_all(const Batch& batch);

  TokenScorer& inner_;
  std::vector<TokenId> tokens_;
  int n_read_ = 0;     // of them, at the start, that some pass has read
  int first_row_ = 0;  // tokens before the last forward
  int shift_ = 0;      // its first row in the inner scorer's last forward
  std::int64_t n_reread_ = 0;
};

}  // namespace specdec
