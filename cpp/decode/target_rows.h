// The target's rows of one round, warped when a verifier asks.
#pragma once

#include <exception>
#include <optional>
#include <span>
#include <vector>

#include "base/rows.h"
#include "decode/verifier.h"
#include "sampling/constraint.h"
#include "sampling/params.h"

namespace specdec {

class WarpedRows final : public TargetRows {
 public:
  // Row r of the results belongs to proposal token r - 1; n_tokens: of a whole row. All references
  // must outlive this. The constraint, null for none, is asked about what is behind n_prompt
  // tokens.
  WarpedRows(const RowResults& results, int n_tokens, RowOutput output,
             const SamplingParams& params, std::span<const TokenId> committed,
             const DraftProposal& proposal, TokenConstraint* constraint = nullptr,
             std::size_t n_prompt = 0);

  // Of a row that no token can come from, one that means nothing: a verifier may look at rows
  // behind tokens that are refused, or that end the text.
  [[nodiscard]] const Distribution& at(int row) override;
  // Before a token from this row counts: throws what is wrong with the row.
  void require(int row) const;
  // The row after the constraint, bias and penalties, for log-probabilities; needs
  // RowOutput::kLogits.
  [[nodiscard]] std::vector<float> adjusted(int row) const;

 private:
  // Committed tokens, the last n of them, and the row's own path.
  [[nodiscard]] std::vector<TokenId> path_of(int row, std::size_t n) const;
  [[nodiscard]] std::vector<TokenId> prefix_of(int row) const;
  // What the constraint leaves of a row; `storage` holds it if that is not all.
  [[nodiscard]] std::span<const float> logits_of(int row, std::vector<float>& storage) const;
  [[nodiscard]] Distribution warped(int row) const;
  [[nodiscard]] int depth_of(int row) const;

  const RowResults& results_;
  int n_tokens_;
  RowOutput output_;
  const SamplingParams& params_;
  std::span<const TokenId> committed_;
  const DraftProposal& proposal_;
  TokenConstraint* constraint_;
  std::size_t n_prompt_;
  std::vector<std::optional<Distribution>> rows_;  // [proposal.size() + 1]
  std::vector<std::exception_ptr> errors_;         // likewise
};

}  // namespace specdec
