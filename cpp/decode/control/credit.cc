#include "decode/control/credit.h"

#include <algorithm>

namespace specdec {
namespace {

constexpr double kLossShare = 0.01;         // of the plain time ...
constexpr double kLossSteps = 4.0;          // ... and so many plain steps may be lost in all
constexpr double kRequestLossShare = 0.06;  // the same for one request ...
constexpr double kRequestLossSteps = 0.3;   // ... that has become long. Less at its beginning, ...
constexpr double kClearGain = 1.25;         // ... for drafts expected to be so much faster:
constexpr double kClearShare = 0.03;
constexpr double kUnclearShare = 0.01, kUnclearSteps = 0.1;  // ... and still less for others,
constexpr double kShortTokens = 48.0;                        // so long,
constexpr double kGrowthTokens = 128.0;                      // from where it grows for so long
constexpr double kFirstTokens = 32.0;                        // of a request: its first
constexpr double kCarriedSteps = 8.0;                        // earned steps that outlive a request

}  // namespace

void CreditLedger::begin_request() {
  request_credit_ms_ = request_sunk_ms_ = request_plain_ms_ = 0.0;
}

void CreditLedger::end_request(double step_ms) {
  credit_ms_ = std::min(credit_ms_, kCarriedSteps * step_ms);
}

void CreditLedger::restore(const ControllerState& state) {
  credit_ms_ = state.credit_ms;
  plain_ms_ = state.plain_ms;
  begin_request();
}

void CreditLedger::join(const ControllerState& others) {
  const double sunk_ms = request_sunk_ms_;
  restore({.credit_ms = others.credit_ms + request_credit_ms_,
           .plain_ms = others.plain_ms + request_plain_ms_});
  take_earned(sunk_ms);
}

void CreditLedger::add_plain(double ms) {
  plain_ms_ += ms;
  request_plain_ms_ += ms;
}

void CreditLedger::earn(double ms) {
  credit_ms_ += ms;
  request_credit_ms_ += ms;
}

bool CreditLedger::allows(double loss_ms, double speedup, double step_ms) const {
  const bool clear = speedup >= kClearGain;
  const double first_share = clear ? kClearShare : kUnclearShare;
  const double first_steps = clear ? kRequestLossSteps : kUnclearSteps;
  // Most short answers end before a draft has paid for its beginning.
  const double n_tokens = request_plain_ms_ / std::max(step_ms, 1e-9);
  const double grown = std::clamp((n_tokens - kShortTokens) / kGrowthTokens, 0.0, 1.0);
  const double share = first_share + grown * (kRequestLossShare - first_share);
  const double steps = first_steps + grown * (kRequestLossSteps - first_steps);
  return credit_ms_ - loss_ms >= -(kLossShare * plain_ms_ + kLossSteps * step_ms) &&
         request_credit_ms_ - loss_ms >= -(share * request_plain_ms_ + steps * step_ms);
}

bool CreditLedger::at_first(double step_ms) const {
  return request_credit_ms_ <= 0.0 && request_plain_ms_ < kFirstTokens * step_ms;
}

double CreditLedger::earned_ms() const {
  return std::min(request_credit_ms_ - request_sunk_ms_, credit_ms_);
}

}  // namespace specdec
