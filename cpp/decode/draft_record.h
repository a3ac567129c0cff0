// What a model's draft was token by token, and what became of it: from this a controller learns.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "decode/control/controller.h"
#include "decode/drafter.h"

namespace specdec {

// Of the present pass. As the rule that ends a draft it asks the controller.
class DraftRecord final : public LengthRule {
 public:
  static constexpr int kMostTokens = 15;  // of an adaptive draft: 16 rows

  // May be null: then nobody asks and nobody is told.
  explicit DraftRecord(Controller* controller) : controller_(controller) {}

  // A new pass, of which nothing is known yet.
  void clear();
  // Tokens that the draft may become, leaves included, and that are of any use.
  void set_bounds(int shortest, int longest);
  // The whole proposal; cut: the token behind it is known to be wrong.
  void note(const DraftProposal& proposal, bool cut = false);
  // It came to nothing.
  void forget_siblings() { siblings_.clear(); }

  [[nodiscard]] int n_drafted() const { return n_drafted_; }  // leaves included
  [[nodiscard]] int n_chain() const { return static_cast<int>(chain_.size()); }
  [[nodiscard]] int n_siblings() const { return static_cast<int>(siblings_.size()); }
  // Tells the controller what stood and what did not; accepted as in Verdict.
  void judge(int drafter, std::span<const std::int32_t> accepted) const;

  [[nodiscard]] bool wants_sibling(int n_drafted, int rank, double probability,
                                   double conditional) override;
  [[nodiscard]] bool keep_going(int n_drafted, double probability) override;
  [[nodiscard]] int n_planned_siblings(int n_chain) override;
  void note_sibling(int n_drafted, double conditional) override;

 private:
  // A leaf beside the chain, in the order of the draft.
  struct Sibling {
    std::int32_t index;  // in the proposal
    int depth;
    int rank;
    int grade;
  };

  Controller* controller_;
  int n_drafted_ = 0;
  std::vector<std::int32_t> chain_;  // of the proposal, the first candidates
  bool cut_ = false;
  int shortest_ = 0, longest_ = 0;
  std::vector<int> grades_;  // of the tokens along the chain
  std::vector<Sibling> siblings_;
};

}  // namespace specdec
