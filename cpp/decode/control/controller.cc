#include "decode/control/controller.h"

#include <algorithm>
#include <utility>

namespace specdec {
namespace {

constexpr double kLeastSpeedup = 1.02;
constexpr double kLeastAtFirst = 1.05;  // in a request that is short and has earned nothing
constexpr int kProbeAfter = 32;         // plain tokens after which a model gets another chance, ...
constexpr int kProbeSeldom = 256;       // ... twice as many after each one in vain, at most so many
constexpr int kProbeHopeless = 512;     // where it could not pay; costs change, and drafts tell
constexpr int kPlainEvery = 24;         // passes between plain steps that keep their cost honest
constexpr int kPlainSeldom = 64;        // while drafts gain clearly
constexpr double kClearly = 1.6;        // as a plain step never changes so much unseen
constexpr double kFreeLookupMs = 0.02;  // of each plain step: lookups start free
constexpr double kLookingShare = 0.004;  // of a plain step, that lookups which say nothing may take
constexpr double kLookingRate = 0.05;    // of one pass in what they take
constexpr int kLooksKnown = 16;          // passes until it is known what is too much
constexpr int kRestAfter = 24;           // tokens for which no lookup was expected to pay
constexpr int kMostRest = 8;             // passes, of which one asks them
constexpr double kOutlier = 2.0;         // what a pass may cost of its prediction in the credit
constexpr double kCatchUpRounds = 8.0;   // over which the cost of reading up is spread
constexpr double kReadingGain = 0.1;     // that more context may be worth, in plain time
constexpr double kReadingCredit = 2.0;   // of its expected cost, earned before: the end is unknown
constexpr double kGainRate = 0.1;        // weight of one round in the mean of what rounds gained
constexpr int kGainRounds = 6;           // rounds before that mean is believed
constexpr double kKeptRate = 0.05;       // weight of one round in what rounds kept of expectations
constexpr double kForgiven = 0.004;      // of what they lacked, with each pass without a draft
constexpr double kSure = 0.9;            // acceptance of a model that could not be much better, ...
constexpr int kSureTokens = 8;           // ... in drafts of at most so many tokens, ...
constexpr double kWorthALook = 1.3;      // ... and what that gains where each new text is worth one
constexpr double kHopeless = 1.0 / 256;  // chance of a whole draft below which none is longer
constexpr double kUnknownDraft = 0.5;    // a draft step that was never measured, in plain steps

constexpr std::string_view kNoRoom = "no room for a draft";
constexpr std::string_view kProbe = "probe";
constexpr std::string_view kResting = "lookups rest";

}  // namespace

Controller::Controller(std::vector<DrafterTraits> drafters) {
  for (DrafterTraits& traits : drafters) {
    has_lookups_ = has_lookups_ || traits.lookup;
    const auto kind =
        traits.lookup ? AcceptanceModel::Kind::kLookup : AcceptanceModel::Kind::kModel;
    drafters_.push_back({.traits = std::move(traits),
                         .acceptance = AcceptanceModel(kind),
                         .siblings = AcceptanceModel(kind),
                         .cost = CostModel(),
                         .idle_tokens = 0,
                         .probe_after = kProbeAfter,
                         .gained = 0.0,
                         .n_rounds = 0,
                         .kept = 1.0});
  }
}

void Controller::begin_request() {
  for (Standing& drafter : drafters_) {
    drafter.acceptance.fade();
    drafter.siblings.fade();
    if (best_case(drafter) >= kWorthALook) {
      drafter.probe_after = std::max(drafter.probe_after / 2, kProbeAfter);
      drafter.idle_tokens = drafter.probe_after;  // a new text: worth a look
    } else {
      drafter.probe_after = std::max(drafter.probe_after, kProbeSeldom / 2);
    }
    drafter.n_rounds = std::min(drafter.n_rounds, kGainRounds / 2);
  }
  target_.begin_request();
  credit_.begin_request();
  n_rounds_ = 0;
  plain_in_a_row_ = 0;
  unpromising_tokens_ = n_rested_ = 0;
  plain_reason_ = "nothing was drafted yet";
}

void Controller::end_beside(const ControllerState& others) {
  company_ = {};
  credit_.join(others);
  end_request();
}

bool Controller::allowed(double loss_ms, double speedup) const {
  return credit_.allows(loss_ms, speedup, plain_ms());
}

double Controller::target_ms(int n_rows) const {
  const int others = n_reread_ + company_.n_rows;
  if (company_.n_reading == 0) return target_.ms(others + n_rows);
  const int beside = others + company_.n_reading;
  return target_.ms(others + 1) + target_.ms(beside + n_rows) - target_.ms(beside + 1);
}

double Controller::draft_ms(const Standing& drafter, int n_behind, int length) const {
  if (drafter.traits.lookup) return 0.0;
  const CostModel& cost = drafter.cost;
  // In passes of one row. What lacks is read with all that is read again.
  double steps = cost.ratio(n_reread_ > 0 ? n_reread_ + 1 : n_behind);
  if (n_reread_ == 0) steps += length - 1;
  for (int step = 1; n_reread_ > 0 && step < length; ++step)
    steps += cost.ratio(n_reread_ + 1 + step);
  return steps * (cost.known() ? cost.ms(1) : kUnknownDraft * target_.ms(1));
}

void Controller::consider(const Offer& offer, int budget, Choice& best, bool& refused) {
  const Standing& drafter = at(offer.drafter);
  const double token_ms = this->token_ms(), row_ms = target_ms(1);
  const int grade = AcceptanceModel::match_grade(offer.match_length);
  double expected = 1.0 + company_.n_tokens;
  double all_right = 1.0;
  const int limit = std::min(budget, offer.n_tokens);
  const double least = credit_.at_first(plain_ms()) ? kLeastAtFirst : kLeastSpeedup;
  for (int n = 1; n <= limit && (all_right > kHopeless || n <= offer.n_least); ++n) {
    all_right *= drafter.traits.lookup ? drafter.acceptance.rate(n - 1, grade)
                                       : drafter.acceptance.rate(n - 1);
    expected += all_right;
    const double pass_ms = target_ms(n * offer.n_candidates + 1);
    const double cost_ms = draft_ms(drafter, offer.n_behind, n) + pass_ms;
    // Reading up serves the rounds after this one too.
    const double usual_ms = draft_ms(drafter, std::min(offer.n_behind, 2), n) + pass_ms;
    const double spread_ms = usual_ms + (cost_ms - usual_ms) / kCatchUpRounds;
    double speedup = expected * token_ms / spread_ms;
    double own = (expected - company_.n_tokens) * token_ms / (token_ms + spread_ms - row_ms);
    // Stopping where it gets unsure, a model does better than any fixed length.
    if (company_.none() && !drafter.traits.lookup && drafter.n_rounds >= kGainRounds)
      speedup = own = std::max(speedup, drafter.gained);
    const double promised = own;
    speedup *= std::min(drafter.kept, 1.0);
    own *= std::min(drafter.kept, 1.0);
    if (n < offer.n_least || own < least || speedup <= best.speedup) continue;
    promising_ = promising_ || drafter.traits.lookup;
    if (!allowed(cost_ms - row_ms, own)) {
      refused = true;  // a longer draft may be a clearer gain
      continue;
    }
    best = {.drafter = offer.drafter,
            .length = n,
            .n_behind = offer.n_behind,
            .n_candidates = offer.n_candidates,
            .speedup = speedup,
            .own_speedup = own,
            .promised = promised,
            .reason = "best expected speed"};
  }
}

// How much faster than plain steps a model would be if it were nearly always right.
double Controller::best_case(const Standing& drafter) const {
  double expected = 1.0, all_right = 1.0, best = 0.0;
  if (!target_.known() || !drafter.cost.known() || n_reread_ > 0) return kWorthALook;
  for (int n = 1; n <= kSureTokens; ++n) {
    expected += all_right *= kSure;
    best = std::max(best, expected * target_.ms(1) / (draft_ms(drafter, 1, n) + target_.ms(n + 1)));
  }
  return best;
}

// A model that has not drafted for long may have become good: one token tells, or as few as it may
// draft.
Choice Controller::probe(const std::vector<Offer>& offers, int budget, Choice plain) {
  for (const Offer& offer : offers) {
    const Standing& drafter = at(offer.drafter);
    const int length = std::max(offer.n_least, 1);
    if (drafter.traits.lookup || std::min(offer.n_tokens, budget) < length) continue;
    if (drafter.idle_tokens < drafter.probe_after) continue;
    if (drafter.idle_tokens < kProbeHopeless && best_case(drafter) < 1.0) continue;
    const double loss_ms = draft_ms(drafter, offer.n_behind, length) +
                           target_ms(length * offer.n_candidates + 1) - target_ms(1);
    if (!allowed(loss_ms, 1.0)) continue;
    return {.drafter = offer.drafter,
            .length = length,
            .n_behind = offer.n_behind,
            .n_candidates = offer.n_candidates,
            .speedup = 1.0,
            .own_speedup = 1.0,
            .reason = kProbe};
  }
  return plain;
}

bool Controller::wants_lookups() {
  looked_ = true;
  if (has_lookups_ && unpromising_tokens_ >= kRestAfter) {
    const double share = looking_ms_ / std::max(plain_ms(), 1e-9);
    const int one_of = std::clamp(static_cast<int>(share / kLookingShare) + 1, 1, kMostRest);
    looked_ = n_rested_ + 1 >= one_of;
  }
  n_rested_ = looked_ ? 0 : n_rested_ + 1;
  return looked_;
}

Choice Controller::choose(const std::vector<Offer>& offers, int budget) {
  Choice best;
  bool refused = false;
  promising_ = false;
  if (target_.known()) {
    for (const Offer& offer : offers) consider(offer, budget, best, refused);
  }
  // In company the passes of others measure it too.
  const bool seldom = best.own_speedup >= kClearly || !company_.none();
  const int plain_every = seldom ? kPlainSeldom : kPlainEvery;
  if (!target_.known() || passes_since_plain_ >= plain_every) {
    best = {.reason = "plain step to measure its cost"};
  } else {
    if (best.drafter < 0) {
      best.reason = refused      ? std::string_view("no credit left for a worst case")
                    : budget < 1 ? kNoRoom
                    : offers.empty() && !looked_ ? kResting
                    : offers.empty()             ? std::string_view("nothing to propose")
                                                 : std::string_view("no draft is expected to pay");
      best = probe(offers, budget, best);
    }
  }
  // A model is drafted token by token, its own confidence says where to stop.
  if (best.drafter >= 0 && !at(best.drafter).traits.lookup && best.reason != kProbe) {
    for (const Offer& offer : offers) {
      if (offer.drafter == best.drafter) best.length = std::min(budget, offer.n_tokens);
    }
  }
  choice_ = best;
  path_rate_ = 1.0;
  n_siblings_ = 0;
  return best;
}

bool Controller::wants_sibling(int n_drafted, int rank, double probability, double conditional) {
  if (choice_.drafter < 0) return false;
  const Standing& drafter = at(choice_.drafter);
  if (rank == 1) {
    miss_rate_ = 1.0 - drafter.acceptance.rate(n_drafted - 1,
                                               AcceptanceModel::confidence_grade(probability));
  }
  const double right =
      drafter.siblings.rate(rank - 1, AcceptanceModel::confidence_grade(conditional));
  const int n_rows = 1 + n_drafted + n_siblings_;
  const double row_ms = target_ms(n_rows + 1) - target_ms(n_rows);
  // A leaf that is right brings one token: without it the target would say it itself.
  const double gain = path_rate_ * miss_rate_ * right;
  if (gain * token_ms() < choice_.speedup * row_ms) return false;
  const double cost_ms =
      draft_ms(drafter, choice_.n_behind, n_drafted) + target_ms(n_rows + 1) - target_ms(1);
  if (!allowed(cost_ms, choice_.own_speedup)) return false;
  miss_rate_ *= 1.0 - right;
  ++n_siblings_;
  return true;
}

int Controller::planned_siblings(int n_chain) const {
  if (choice_.drafter < 0) return 0;
  const Standing& drafter = drafters_[static_cast<std::size_t>(choice_.drafter)];
  double path_rate = 1.0;
  int n = 0;
  for (; n < n_chain; ++n) {
    const int n_rows = 1 + n_chain + n;
    const double rate = drafter.acceptance.rate(n);
    const double gain = path_rate * (1.0 - rate) * drafter.siblings.rate(0);
    const double row_ms = target_ms(n_rows + 1) - target_ms(n_rows);
    if (gain * token_ms() < choice_.speedup * row_ms) break;
    const double cost_ms =
        draft_ms(drafter, choice_.n_behind, n_chain) + target_ms(n_rows + 1) - target_ms(1);
    if (!allowed(cost_ms, choice_.own_speedup)) break;
    path_rate *= rate;
  }
  return n;
}

bool Controller::keep_going(int n_drafted, double probability) {
  if (choice_.drafter < 0 || n_drafted >= choice_.length) return false;
  const Standing& drafter = at(choice_.drafter);
  path_rate_ *=
      drafter.acceptance.rate(n_drafted - 1, AcceptanceModel::confidence_grade(probability));
  const double gain = path_rate_ * drafter.acceptance.rate(n_drafted);
  const int n_rows = 1 + n_drafted * choice_.n_candidates + n_siblings_;
  const double more_ms = target_ms(n_rows + choice_.n_candidates);
  const double step_ms = draft_ms(drafter, 1, 1) + more_ms - target_ms(n_rows);
  // Worth it when it brings tokens faster than passes do on average.
  if (gain * token_ms() < choice_.speedup * step_ms) return false;
  const double cost_ms = draft_ms(drafter, choice_.n_behind, n_drafted + 1) + more_ms;
  return allowed(cost_ms - target_ms(1), choice_.own_speedup);
}

// What asking lookups takes, and for how long they have had nothing to say.
void Controller::note_looking(const PassOutcome& outcome) {
  if (promising_)
    unpromising_tokens_ = 0;
  else if (!outcome.forced)
    unpromising_tokens_ += outcome.n_emitted;
  promising_ = false;
  if (outcome.looking_ms > 0.0) {
    ++n_looks_;
    const double most = n_looks_ > kLooksKnown ? kOutlier * looking_ms_ : kFreeLookupMs;
    looking_ms_ +=
        std::max(kLookingRate, 1.0 / n_looks_) * (std::min(outcome.looking_ms, most) - looking_ms_);
  }
}

void Controller::observe(const PassOutcome& outcome) {
  const Choice& choice = outcome.choice;
  const int n_rows = 1 + outcome.n_drafted + outcome.n_siblings + outcome.n_unused;
  const int n_last = outcome.lost_ms > 0.0 ? 1 : n_rows;  // in the last pass
  // Of a pass that is shared, the part that its rows are.
  const int n_in_pass = company_.n_rows + n_last;
  const double predicted_verify = target_.ms(n_reread_ + n_in_pass) * n_last / n_in_pass;
  double draft_ms = outcome.draft_ms;
  if (company_.none()) target_.observe(n_reread_ + n_last, outcome.verify_ms, outcome.reading);
  const int n_made = std::max(outcome.n_made, outcome.n_drafted);
  const bool drafts = choice.drafter >= 0 && n_made > 0;
  if (drafts) {
    Standing& drafter = at(choice.drafter);
    if (!drafter.traits.lookup) {
      const double predicted = this->draft_ms(drafter, choice.n_behind, n_made);
      if (drafter.cost.known()) {
        drafter.cost.observe_sum(predicted, draft_ms);
        draft_ms = std::min(draft_ms, kOutlier * predicted);
      } else {
        // Of passes that are all about as long, one.
        if (n_reread_ > 0) {
          drafter.cost.observe(n_reread_ + 1, draft_ms / n_made);
        } else {
          drafter.cost.observe(choice.n_behind + n_made - 1, draft_ms);
        }
      }
    }
  }
  for (Standing& drafter : drafters_) {
    drafter.idle_tokens += outcome.n_emitted;
    if (!drafts) drafter.kept += kForgiven * std::max(1.0 - drafter.kept, 0.0);
  }
  note_looking(outcome);

  const double plain_ms = this->plain_ms();
  double verify_ms = predicted_verify > 0.0
                         ? std::min(outcome.verify_ms, kOutlier * predicted_verify)
                         : outcome.verify_ms;
  // All of it, also where it was shared: the others' rows have to be computed again, too.
  if (outcome.lost_ms > 0.0) {
    const double predicted = target_.ms(n_reread_ + company_.n_rows + n_rows);
    verify_ms +=
        predicted > 0.0 ? std::min(outcome.lost_ms, kOutlier * predicted) : outcome.lost_ms;
  }
  credit_.add_plain(outcome.n_emitted * plain_ms);
  if (drafts) {
    Standing& drafter = at(choice.drafter);
    drafter.idle_tokens = 0;
    const double gained = outcome.n_emitted * plain_ms / (draft_ms + verify_ms);
    ++drafter.n_rounds;
    drafter.gained += std::max(kGainRate, 1.0 / drafter.n_rounds) * (gained - drafter.gained);
    // Beside others what a draft promises is its part of rows that are nearly free.
    if (drafter.traits.lookup && company_.none() && choice.promised > 0.0) {
      const double kept = std::min(gained / choice.promised, kOutlier);
      drafter.kept += kKeptRate * (kept - drafter.kept);
    }
    if (gained > 1.0) {
      drafter.probe_after = kProbeAfter;
    } else if (choice.reason == kProbe) {
      drafter.probe_after = std::min(2 * drafter.probe_after, kProbeSeldom);
    }
  }
  if (outcome.n_drafted == 0) {
    credit_.debit(std::max(draft_ms - kFreeLookupMs, 0.0));  // looking in vain is paid for too
    if (outcome.n_unused > 0) {  // so are rows for a draft that came to nothing
      credit_.debit(std::clamp(outcome.verify_ms - plain_ms, 0.0, kOutlier * predicted_verify));
      ++passes_since_plain_;
    } else {
      passes_since_plain_ = 0;
    }
    ++plain_in_a_row_;
    // Every text has a last token, and lookups rest for a reason that was told before.
    if (choice.reason != kNoRoom && choice.reason != kResting) plain_reason_ = choice.reason;
    return;
  }
  credit_.earn(outcome.n_emitted * plain_ms - draft_ms - verify_ms);
  ++n_rounds_;
  ++passes_since_plain_;
  plain_in_a_row_ = 0;
}

bool Controller::worth_reading(int drafter, double ms, int n_left) const {
  ms *= company_.n_others + 1;  // they wait for it too
  return choice_.drafter == drafter && credit_.earned_ms() >= kReadingCredit * ms &&
         ms <= kReadingGain * n_left * target_ms(1);
}

std::string Controller::speculation() const {
  if (n_rounds_ > 0 && plain_in_a_row_ < kProbeAfter) return "on";
  return "off: " + std::string(plain_reason_);
}

}  // namespace specdec
