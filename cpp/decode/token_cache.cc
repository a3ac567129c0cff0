#include "decode/token_cache.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace specdec {

void throw_if_cancelled(const std::atomic<bool>* cancel) {
  if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
    throw Error(ErrorCode::kCancelled, "cancelled by the caller");
  }
}

int TokenCache::common_length(std::span<const TokenId> tokens, int max_length) const {
  // Somebody else changed the scorer: trust nothing.
  if (scorer_.length() < length()) return 0;
  const auto limit =
      std::min({tokens_.size(), tokens.size(), static_cast<std::size_t>(std::max(max_length, 0))});
  std::size_t common = 0;
  while (common < limit && tokens_[common] == tokens[common]) ++common;
  return static_cast<int>(common);
}

void TokenCache::align_to_reachable(std::span<const TokenId> tokens, int max_length) {
  align(tokens, scorer_.reachable(common_length(tokens, max_length)));
}

void TokenCache::align(std::span<const TokenId> tokens, int max_length) {
  const int common = common_length(tokens, max_length);
  // The list first: should truncate throw, the surplus rows are dropped by the next align.
  tokens_.resize(static_cast<std::size_t>(common));
  if (scorer_.length() != length()) scorer_.truncate(length());
}

void TokenCache::adopt(std::vector<TokenId> tokens) {
  SPECDEC_CHECK(static_cast<std::size_t>(scorer_.length()) == tokens.size());
  tokens_ = std::move(tokens);
}

void TokenCache::append(std::span<const TokenId> tokens, RowOutput last_row_output, int top_k,
                        std::span<const std::int32_t> head_blocks) {
  SPECDEC_CHECK(!tokens.empty() && scorer_.length() == length());
  tokens_.reserve(tokens_.size() + tokens.size());
  const int n = static_cast<int>(tokens.size());
  scorer_.forward({.tokens = tokens,
                   .parents = {},
                   .first_output_row = last_row_output == RowOutput::kNone ? n : n - 1,
                   .output = last_row_output,
                   .top_k = top_k,
                   .head_blocks = head_blocks});
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

int TokenCache::append_steps(std::span<const TokenId> tokens, int n_steps, RowOutput output,
                             int top_k, std::span<const std::int32_t> head_blocks) {
  Steps made = steps_behind(tokens, n_steps, output, top_k, head_blocks);
  made.n_done = scorer_.forward_steps(made.batch, n_steps);
  note(made);
  return made.n_done;
}

Steps TokenCache::steps_behind(std::span<const TokenId> tokens, int n_steps, RowOutput output,
                               int top_k, std::span<const std::int32_t> head_blocks) {
  SPECDEC_CHECK(!tokens.empty() && n_steps >= 1 && scorer_.length() == length());
  tokens_.reserve(tokens_.size() + tokens.size() + static_cast<std::size_t>(n_steps));
  Steps out;
  out.n_steps = n_steps;
  out.batch = {.tokens = tokens,
               .parents = {},
               .first_output_row = static_cast<int>(tokens.size()) - 1,
               .output = output,
               .top_k = top_k,
               .head_blocks = head_blocks};
  return out;
}

void TokenCache::note(const Steps& steps) {
  const std::span<const TokenId> tokens = steps.batch.tokens;
  const int last_row = static_cast<int>(tokens.size()) - 1;
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  for (int step = 0; step + 1 < steps.n_done; ++step)
    tokens_.push_back(scorer_.argmax(last_row + step));
}

void TokenCache::read(std::span<const TokenId> tokens, const std::atomic<bool>* cancel,
                      const std::function<void(int)>& on_piece) {
  while (!tokens.empty()) {
    throw_if_cancelled(cancel);
    const auto n = std::min<std::size_t>(tokens.size(), kPieceRows);
    append(tokens.first(n), RowOutput::kNone);
    tokens = tokens.subspan(n);
    if (on_piece) on_piece(length());
  }
}

void TokenCache::keep(std::span<const TokenId> batch_tokens, std::span<const std::int32_t> path) {
  bool head = true;  // a path 0, 1, 2, ... only needs the tail cut off
  for (std::size_t i = 0; i < path.size(); ++i)
    head = head && path[i] == static_cast<std::int32_t>(i);
  tokens_.reserve(tokens_.size() + path.size());
  if (head) {
    scorer_.truncate(length() + static_cast<int>(path.size()));
  } else {
    scorer_.keep_path(path);
  }
  for (const std::int32_t row : path)
    tokens_.push_back(batch_tokens[static_cast<std::size_t>(row)]);
}

}  // namespace specdec
