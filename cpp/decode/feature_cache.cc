#include "decode/feature_cache.h"

#include <algorithm>

#include "base/error.h"
#include "decode/token_cache.h"

namespace specdec {

FeatureCache::FeatureCache(FeatureScorer& scorer, const FeatureCache& other)
    : scorer_(scorer),
      first_row_(other.first_row_),
      n_read_(other.n_read_),
      head_(other.head_),
      tokens_(other.tokens_),
      waiting_(other.waiting_) {
  SPECDEC_CHECK(scorer_.length() >= n_read_);
  drop_drafts();
}

void FeatureCache::drop_drafts() {
  if (scorer_.length() != n_read_) scorer_.truncate(n_read_);
}

void FeatureCache::clear() {
  cut(0);
  head_.clear();
  first_row_ = 0;
}

// The lists first: should truncate() throw, the surplus rows are dropped by the next call.
void FeatureCache::cut(int n_rows) {
  if (n_rows < static_cast<int>(tokens_.size())) tokens_.resize(static_cast<std::size_t>(n_rows));
  n_read_ = std::min(n_read_, n_rows);
  waiting_.resize(static_cast<std::size_t>(n_waiting()) * scorer_.n_tapped());
  drop_drafts();
}

void FeatureCache::align(std::span<const TokenId> text) {
  const std::span<const TokenId> head = text.first(std::min(text.size(), head_.size()));
  if (!std::equal(head.begin(), head.end(), head_.begin(), head_.end())) return clear();
  const std::span<const TokenId> rest = text.subspan(head.size());
  std::size_t common = 0;
  while (common < std::min(rest.size(), tokens_.size()) && rest[common] == tokens_[common])
    ++common;
  cut(static_cast<int>(common));
}

void FeatureCache::add(std::span<const TokenId> text, int row, std::span<const float> taps) {
  const std::size_t width = scorer_.n_tapped();
  SPECDEC_CHECK(width > 0 && taps.size() % width == 0);
  const auto n_rows = static_cast<int>(taps.size() / width);
  const std::size_t n_needed = static_cast<std::size_t>(row) + static_cast<std::size_t>(n_rows) + 1;
  SPECDEC_CHECK(row >= 0 && text.size() >= n_needed);
  align(text.first(n_needed));
  if (tokens_.empty() || row > n_known()) {
    clear();
    first_row_ = row;
    head_.assign(text.begin(), text.begin() + row + 1);
  }
  // Rows that were known have the same taps.
  const int n_same = std::min(n_known() - row, n_rows);
  if (row < first_row_ || n_same == n_rows) return;
  tokens_.insert(tokens_.end(), text.begin() + row + n_same + 1, text.begin() + row + n_rows + 1);
  waiting_.insert(
      waiting_.end(),
      taps.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(n_same) * width),
      taps.end());
}

// What was read stays so when a later piece fails.
void FeatureCache::read_piece(int n_rows, RowOutput output, int top_k,
                              std::span<const std::int32_t> head_blocks) {
  const auto n = static_cast<std::size_t>(n_rows);
  const std::size_t n_floats = n * scorer_.n_tapped();
  const bool wanted = output != RowOutput::kNone;
  features_.resize(n * scorer_.n_features());
  scorer_.fuse(std::span<const float>(waiting_).first(n_floats), n_rows, features_);
  scorer_.forward(
      {.tokens = std::span<const TokenId>(tokens_).subspan(static_cast<std::size_t>(n_read_), n),
       .first_output_row = wanted ? n_rows - 1 : n_rows,
       .output = output,
       .top_k = top_k,
       .head_blocks = head_blocks,
       .hidden = features_,
       .keep_hidden = wanted});
  n_read_ += n_rows;
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(n_floats));
}

int FeatureCache::read(RowOutput output, int top_k, std::span<const std::int32_t> head_blocks) {
  SPECDEC_CHECK(n_waiting() > 0);
  drop_drafts();
  while (n_waiting() > kPieceRows) read_piece(kPieceRows, RowOutput::kNone, 1, {});
  const int n_rows = n_waiting();
  read_piece(n_rows, output, top_k, head_blocks);
  return n_rows - 1;
}

void FeatureCache::read_all_but_last(const std::atomic<bool>* cancel) {
  drop_drafts();
  while (n_waiting() > 1) {
    throw_if_cancelled(cancel);
    read_piece(std::min(n_waiting() - 1, kPieceRows), RowOutput::kNone, 1, {});
  }
}

void FeatureCache::append(TokenId token, std::span<const float> feature, RowOutput output,
                          int top_k, std::span<const std::int32_t> head_blocks) {
  features_.assign(feature.begin(), feature.end());
  scorer_.forward({.tokens = {&token, 1},
                   .output = output,
                   .top_k = top_k,
                   .head_blocks = head_blocks,
                   .hidden = features_,
                   .keep_hidden = true});
}

void FeatureCache::append_tree(const Batch& batch) {
  drop_drafts();
  scorer_.forward(batch);
}

}  // namespace specdec
