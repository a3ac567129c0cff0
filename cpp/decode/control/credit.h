// Time that speculation has won or lost against plain decoding, and how much more it may lose.
#pragma once

#include <algorithm>

namespace specdec {

// What outlives a process: how much may be lost in all is counted over all runs of a pair.
struct ControllerState {
  double credit_ms = 0.0;
  double plain_ms = 0.0;
};

// Credit: speculative rounds add (tokens x plain step - elapsed). A round is allowed only if the
// credit after its worst case stays above -(1 % of the plain time so far + 4 plain steps), so all
// requests together take at most 1.01 x plain + 4 steps. At most 8 earned steps are carried from
// request to request. For drafts expected to be 1.25 times as fast as plain steps, a request may
// lose 0.3 steps and 3 % of its own plain time so far; for others 0.1 steps and 1 %. From 48 tokens
// on both grow, to 0.3 steps and 6 % at 176.
//
// step_ms: what a plain step takes, as of now.
class CreditLedger {
 public:
  void begin_request();
  void end_request(double step_ms);
  [[nodiscard]] ControllerState state() const { return {credit_ms_, plain_ms_}; }
  // What earlier requests earned and lost; nothing yet is a request's own.
  void restore(const ControllerState& state);
  // What this request earned and lost by itself is added to what others did, in place of what was
  // there when it began; end_request() does not limit it.
  void join(const ControllerState& others);

  // So much was emitted, in time of plain steps.
  void add_plain(double ms);
  void earn(double ms);
  void debit(double ms) { earn(-ms); }
  // Lost whatever follows: it takes what was earned, but nothing of what may be lost, as every
  // request has it, and no draft could ever earn it back once drafting had ended for it.
  void debit_sunk(double ms) {
    take_earned(ms);
    request_sunk_ms_ += ms;
  }

  // Whether a draft that is expected to be so much faster than plain steps may lose so much.
  [[nodiscard]] bool allows(double loss_ms, double speedup, double step_ms) const;
  // A request that is short and has earned nothing.
  [[nodiscard]] bool at_first(double step_ms) const;
  // What can be spent without a loss, of this request and of all.
  [[nodiscard]] double earned_ms() const;

 private:
  void take_earned(double ms) { credit_ms_ -= std::clamp(ms, 0.0, std::max(credit_ms_, 0.0)); }

  double credit_ms_ = 0.0;
  double plain_ms_ = 0.0;           // of everything emitted so far
  double request_credit_ms_ = 0.0;  // without request_sunk_ms_
  double request_sunk_ms_ = 0.0;
  double request_plain_ms_ = 0.0;
};

}  // namespace specdec
