// What becomes of a step of a draft that fails behind tokens that were drawn.
#pragma once

#include <exception>
#include <utility>

#include "base/error.h"
#include "decode/drafter.h"

namespace specdec {

class DraftFailure {
 public:
  void clear() { failure_ = nullptr; }
  // At the beginning of a draft: throws what failed in the one before.
  void throw_if_any() {
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  // Whether a step behind the proposal could be made. Tokens that were drawn stand although what
  // follows fails: without them, those for which it does would come too seldom. The failure is
  // thrown when it is the turn of the next draft.
  template <typename Step>
  [[nodiscard]] bool succeeds(const DraftProposal& proposal, Step&& step) {
    try {
      step();
    } catch (const Error& error) {
      if (proposal.empty() || proposal.deterministic() || error.code() == ErrorCode::kCancelled)
        throw;
      failure_ = std::current_exception();
    }
    return failure_ == nullptr;
  }

 private:
  std::exception_ptr failure_;  // behind the last drawn draft
};

}  // namespace specdec
