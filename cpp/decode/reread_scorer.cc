#include "decode/reread_scorer.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "decode/token_cache.h"

namespace specdec {

void RereadScorer::clear() {
  truncate(0);
  n_reread_ = 0;
}

void RereadScorer::forward(const Batch& batch) {
  const int n_before = length();
  const auto n_rows = static_cast<int>(batch.tokens.size());
  if (n_before + n_rows > n_ctx()) {
    throw Error(ErrorCode::kContextFull, "the context of " + std::to_string(n_ctx()) +
                                             " tokens holds " + std::to_string(n_before) +
                                             ": no room for " + std::to_string(n_rows) + " more");
  }
  tokens_.reserve(tokens_.size() + batch.tokens.size());
  if (batch.output != RowOutput::kNone) {
    read_all(batch);
    n_reread_ += std::min(n_read_, n_before);
    n_read_ = n_before + n_rows;
  }
  first_row_ = n_before;
  tokens_.insert(tokens_.end(), batch.tokens.begin(), batch.tokens.end());
}

// A chain goes in one pass with what is before it, as far as passes reach; a tree in one of its
// own, because devices bound the rows of those.
void RereadScorer::read_all(const Batch& batch) {
  const auto n_before = static_cast<int>(tokens_.size());
  constexpr int kPiece = TokenCache::kPieceRows;
  const int n_all = n_before + static_cast<int>(batch.tokens.size());
  const int n_head =
      batch.parents.empty() ? std::min(n_before, (n_all - 1) / kPiece * kPiece) : n_before;
  inner_.truncate(0);
  const std::span<const TokenId> before = tokens_;
  for (int at = 0; at < n_head; at += kPiece) {
    const int n = std::min(kPiece, n_head - at);
    inner_.forward(
        {.tokens = before.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(n)),
         .parents = {},
         .first_output_row = n,
         .output = RowOutput::kNone});
  }
  Batch last = batch;
  std::vector<TokenId> rows(before.begin() + n_head, before.end());
  rows.insert(rows.end(), batch.tokens.begin(), batch.tokens.end());
  last.tokens = rows;
  last.first_output_row += n_before - n_head;
  inner_.forward(last);
  shift_ = n_before - n_head;
}

void RereadScorer::truncate(int n) {
  tokens_.resize(static_cast<std::size_t>(n));
  n_read_ = std::min(n_read_, n);
  inner_.truncate(0);
}

void RereadScorer::keep_path(std::span<const std::int32_t> rows) {
  std::vector<TokenId> kept;
  kept.reserve(rows.size());
  for (const std::int32_t row : rows)
    kept.push_back(tokens_.at(static_cast<std::size_t>(first_row_ + row)));
  truncate(first_row_);
  tokens_.insert(tokens_.end(), kept.begin(), kept.end());
  n_read_ = length();
}

}  // namespace specdec
