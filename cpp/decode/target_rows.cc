#include "decode/target_rows.h"

#include <algorithm>

#include "base/error.h"
#include "sampling/warp.h"

namespace specdec {

WarpedRows::WarpedRows(const RowResults& results, int n_tokens, RowOutput output,
                       const SamplingParams& params, std::span<const TokenId> committed,
                       const DraftProposal& proposal, TokenConstraint* constraint,
                       std::size_t n_prompt)
    : results_(results),
      n_tokens_(n_tokens),
      output_(output),
      params_(params),
      committed_(committed),
      proposal_(proposal),
      constraint_(constraint),
      n_prompt_(n_prompt),
      rows_(proposal.tokens.size() + 1),
      errors_(rows_.size()) {}

int WarpedRows::depth_of(int row) const {
  int depth = 0;
  for (; row >= 0; row = proposal_.parent(row)) ++depth;
  return depth;
}

std::vector<TokenId> WarpedRows::path_of(int row, std::size_t n) const {
  std::vector<TokenId> path;
  for (; row >= 0; row = proposal_.parent(row))
    path.push_back(proposal_.tokens[static_cast<std::size_t>(row)]);
  path.insert(path.end(), committed_.rbegin(),
              committed_.rbegin() + static_cast<std::ptrdiff_t>(n));
  std::reverse(path.begin(), path.end());
  return path;
}

// As far back as the penalties look.
std::vector<TokenId> WarpedRows::prefix_of(int row) const {
  if (!params_.has_penalties()) return {};
  std::size_t n = committed_.size();
  if (params_.penalty_last_n >= 0)
    n = std::min(n, static_cast<std::size_t>(params_.penalty_last_n));
  return path_of(row, n);
}

std::span<const float> WarpedRows::logits_of(int row, std::vector<float>& storage) const {
  const std::span<const float> logits = results_.logits(row + 1);
  if (constraint_ == nullptr) return logits;
  storage = allowed_logits(logits, *constraint_, path_of(row, committed_.size() - n_prompt_),
                           params_.logit_bias);
  return storage;
}

const Distribution& WarpedRows::at(int row) {
  const auto index = static_cast<std::size_t>(row + 1);
  std::optional<Distribution>& slot = rows_[index];
  if (slot) return *slot;
  try {
    slot = warped(row);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kInvalidArgument && error.code() != ErrorCode::kNumerical) throw;
    errors_[index] = std::current_exception();
    slot = Distribution::one_hot(0);
  }
  return *slot;
}

void WarpedRows::require(int row) const {
  const std::exception_ptr& error = errors_[static_cast<std::size_t>(row + 1)];
  if (error) std::rethrow_exception(error);
}

Distribution WarpedRows::warped(int row) const {
  if (output_ == RowOutput::kArgmax) {
    const TokenId best = results_.argmax(row + 1);
    if (best < 0)
      throw Error(ErrorCode::kNumerical, "a row of the target's logits has no finite maximum");
    return Distribution::one_hot(best);
  }
  const std::uint64_t position = committed_.size() + static_cast<std::size_t>(depth_of(row));
  if (output_ == RowOutput::kTop) {
    // More of the best may be known than the distribution is made of.
    std::span<const TopToken> top = results_.top(row + 1);
    const auto needed = static_cast<std::size_t>(params_.needs_only_top(n_tokens_));
    return warp_top(top.first(std::min(top.size(), needed)), params_, position);
  }
  std::vector<float> storage;
  return warp(logits_of(row, storage), params_, prefix_of(row), position);
}

std::vector<float> WarpedRows::adjusted(int row) const {
  std::vector<float> storage;
  return adjusted_logits(logits_of(row, storage), params_, prefix_of(row));
}

}  // namespace specdec
