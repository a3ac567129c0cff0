// The target's rows of one round, warped when a verifier asks.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/rows.h"
#include "decode/verifier.h"
#include "sampling/params.h"

namespace specdec {

class WarpedRows final : public TargetRows {
 public:
  // Row r of the results belongs to proposal token r - 1; n_tokens: of a whole row. All references
  // must outlive this.
  WarpedRows(const RowResults& results, int n_tokens, RowOutput output,
             const SamplingParams& params, std::span<const TokenId> committed,
             const DraftProposal& proposal);

  [[nodiscard]] const Distribution& at(int row) override;
  // The row after bias and penalties, for log-probabilities; needs RowOutput::kLogits.
  [[nodiscard]] std::vector<float> adjusted(int row) const;

 private:
  [[nodiscard]] std::vector<TokenId> prefix_of(int row) const;
  [[nodiscard]] int depth_of(int row) const;

  const RowResults& results_;
  int n_tokens_;
  RowOutput output_;
  const SamplingParams& params_;
  std::span<const TokenId> committed_;
  const DraftProposal& proposal_;
  std::vector<std::optional<Distribution>> rows_;  // [proposal.size() + 1]
};

}  // namespace specdec
