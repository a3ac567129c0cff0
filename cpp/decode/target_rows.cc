#include "decode/target_rows.h"

#include <algorithm>

#include "base/error.h"
#include "sampling/warp.h"

namespace specdec {

WarpedRows::WarpedRows(const RowResults& results, int n_tokens, RowOutput output,
                       const SamplingParams& params, std::span<const TokenId> committed,
                       const DraftProposal& proposal)
    : results_(results),
      n_tokens_(n_tokens),
      output_(output),
      params_(params),
      committed_(committed),
      proposal_(proposal),
      rows_(proposal.tokens.size() + 1) {}

int WarpedRows::depth_of(int row) const {
  int depth = 0;
  for (; row >= 0; row = proposal_.parent(row)) ++depth;
  return depth;
}

// Committed tokens and the row's own path, as far back as the penalties look.
std::vector<TokenId> WarpedRows::prefix_of(int row) const {
  std::vector<TokenId> path;
  if (!params_.has_penalties()) return path;
  for (; row >= 0; row = proposal_.parent(row))
    path.push_back(proposal_.tokens[static_cast<std::size_t>(row)]);
  std::reverse(path.begin(), path.end());
  std::size_t n = committed_.size();
  if (params_.penalty_last_n >= 0)
    n = std::min(n, static_cast<std::size_t>(params_.penalty_last_n));
  path.insert(path.begin(), committed_.end() - static_cast<std::ptrdiff_t>(n), committed_.end());
  return path;
}

const Distribution& WarpedRows::at(int row) {
  std::optional<Distribution>& slot = rows_[static_cast<std::size_t>(row + 1)];
  if (slot) return *slot;
  if (output_ == RowOutput::kArgmax) {
    const TokenId best = results_.argmax(row + 1);
    if (best < 0)
      throw Error(ErrorCode::kNumerical, "a row of the target's logits has no finite maximum");
    slot = Distribution::one_hot(best);
    return *slot;
  }
  const std::uint64_t position = committed_.size() + static_cast<std::size_t>(depth_of(row));
  if (output_ == RowOutput::kTop) {
    // More of the best may be known than the distribution is made of.
    std::span<const TopToken> top = results_.top(row + 1);
    const auto needed = static_cast<std::size_t>(params_.needs_only_top(n_tokens_));
    slot = warp_top(top.first(std::min(top.size(), needed)), params_, position);
  } else {
    slot = warp(results_.logits(row + 1), params_, prefix_of(row), position);
  }
  return *slot;
}

std::vector<float> WarpedRows::adjusted(int row) const {
  return adjusted_logits(results_.logits(row + 1), params_, prefix_of(row));
}

}  // namespace specdec
