// Chooses, pass by pass, who drafts and how much, from measured costs and observed acceptance, and
// keeps the loss against plain decoding bounded. Knows no models: everything is told to it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "decode/control/acceptance.h"
#include "decode/control/cost_model.h"
#include "decode/control/credit.h"

namespace specdec {

struct DrafterTraits {
  std::string name;
  bool lookup = true;  // makes its proposal for next to nothing, before the choice
};

// What a drafter could do in the next pass.
struct Offer {
  int drafter = 0;
  int n_tokens = 0;      // lookup: of its proposal; model: at most
  int n_least = 1;       // shorter drafts are of no use
  int n_candidates = 1;  // rows that each token of the chain adds to the pass
  int match_length = 0;  // lookup: what the proposal rests on, 0 unknown
  int n_behind = 1;      // model: committed tokens it has to read first, >= 1
};

struct Choice {
  int drafter = -1;  // -1: a plain step
  int length = 0;    // tokens to draft; a model stops earlier when keep_going() says so
  int n_behind = 1;
  int n_candidates = 1;
  double speedup = 1.0;      // expected of the pass: tokens per time, relative to a plain row
  double own_speedup = 1.0;  // and of this request's part in it, which is the same alone
  double promised = 0.0;     // that, before what such promises were worth; 0: none was made
  std::string_view reason;
};

// What a pass cost and brought.
struct PassOutcome {
  Choice choice;
  int n_made = 0;      // tokens that the drafter made, those included that were never in the pass
  int n_drafted = 0;   // along the chain
  int n_siblings = 0;  // and beside it
  int n_unused = 0;    // rows that the pass had besides them
  int n_emitted = 1;
  bool forced = false;      // by a grammar: nobody was asked
  double draft_ms = 0.0;    // of all drafters, lookups that were not chosen included
  double looking_ms = 0.0;  // of that, asking lookups; 0: they were not asked
  double verify_ms = 0.0;   // the target's pass, and taking the tokens from it
  // > 0: that pass had one row, in place of one that took so long and gave nothing for the draft.
  double lost_ms = 0.0;
  Reading reading = {};  // of that pass
};

// Who else is in the pass.
struct Company {
  int n_others = 0;       // requests that generate
  int n_rows = 0;         // that they have in it, so far as that is known; at least one each
  double n_tokens = 0.0;  // that these rows are going to bring
  int n_reading = 0;      // rows of prompts

  [[nodiscard]] bool none() const { return n_rows == 0 && n_reading == 0; }
};

class Controller {
 public:
  explicit Controller(std::vector<DrafterTraits> drafters);

  [[nodiscard]] CostModel& target_cost() { return target_; }
  [[nodiscard]] CostModel& drafter_cost(int drafter) { return at(drafter).cost; }
  [[nodiscard]] AcceptanceModel& acceptance(int drafter) { return at(drafter).acceptance; }
  // Of candidates beside a drafted token that was wrong; position 0 is the second choice.
  [[nodiscard]] AcceptanceModel& siblings(int drafter) { return at(drafter).siblings; }
  [[nodiscard]] int n_drafters() const { return static_cast<int>(drafters_.size()); }
  [[nodiscard]] const DrafterTraits& traits(int drafter) const {
    return drafters_[static_cast<std::size_t>(drafter)].traits;
  }

  void begin_request();
  void end_request() { credit_.end_request(plain_ms()); }
  // The same for a request that ran beside others: `others` is what all that ended before it earned
  // and lost, whatever it began with. target_cost() is that of now.
  void end_beside(const ControllerState& others);
  // Without caches: tokens before the last committed one, which each pass of any model reads again.
  void set_reread(int n_tokens) { n_reread_ = n_tokens; }
  // Before choose() what is known of the pass, before observe() what became of it. Rows are then
  // worth what they bring to all of it, and the passes' costs are told to target_cost() by whoever
  // runs them.
  void set_company(const Company& company) { company_ = company; }
  [[nodiscard]] ControllerState state() const { return credit_.state(); }
  void restore(const ControllerState& state) { credit_.restore(state); }

  // Before choose(): whether lookups are to be asked. Where that takes a good part of a plain step,
  // and nothing they said was worth a draft for long, they rest for some passes.
  [[nodiscard]] bool wants_lookups();
  // budget: tokens a draft may hold at most.
  [[nodiscard]] Choice choose(const std::vector<Offer>& offers, int budget);
  // Is a leaf beside the last of n_drafted tokens worth a row? As LengthRule::wants_sibling().
  [[nodiscard]] bool wants_sibling(int n_drafted, int rank, double probability, double conditional);
  // Beside how many of the first of n_chain tokens a leaf is worth its row, before anything is
  // known of them.
  [[nodiscard]] int planned_siblings(int n_chain) const;
  void note_sibling() { ++n_siblings_; }
  // The chosen model drafted its n-th token with this probability: is the next one worth it?
  [[nodiscard]] bool keep_going(int n_drafted, double probability);
  void observe(const PassOutcome& outcome);
  // Whether a draft model may spend so much on reading more of the text, when n_left tokens are
  // still to come: it must be drafting, have earned it in this request, and stand to gain from it.
  [[nodiscard]] bool worth_reading(int drafter, double ms, int n_left) const;
  void debit(double ms) { credit_.debit(ms); }
  // Spent before the first pass: lost whatever this request does, so it counts in what it earned,
  // and not in what may still be risked.
  void debit_beginning(double ms) { credit_.debit_sunk(ms); }

  // "on" or "off: reason", as of now.
  [[nodiscard]] std::string speculation() const;

 private:
  struct Standing {
    DrafterTraits traits;
    AcceptanceModel acceptance;
    AcceptanceModel siblings = AcceptanceModel(AcceptanceModel::Kind::kModel);
    CostModel cost;
    int idle_tokens = 0;  // emitted since it drafted last
    int probe_after = 0;  // such tokens until it gets another chance
    double gained = 0.0;  // speed-up of its rounds, a running mean
    int n_rounds = 0;
    double kept = 1.0;  // of what its rounds promised to gain: what they did, likewise
  };
  [[nodiscard]] Standing& at(int drafter) { return drafters_[static_cast<std::size_t>(drafter)]; }
  // A pass of the target over so many new rows and those of others. What prompts' rows cost by
  // themselves is no matter of drafts; that rows are dearer beside them is.
  [[nodiscard]] double target_ms(int n_rows) const;
  // What a token costs in a pass where this request has one row, and the others what they have.
  [[nodiscard]] double token_ms() const { return target_ms(1) / (1.0 + company_.n_tokens); }
  // What it costs when nobody drafts.
  [[nodiscard]] double plain_ms() const {
    return target_.ms(n_reread_ + company_.n_others + 1) / (company_.n_others + 1);
  }
  [[nodiscard]] double draft_ms(const Standing& drafter, int n_behind, int length) const;
  [[nodiscard]] bool allowed(double loss_ms, double speedup) const;
  void note_looking(const PassOutcome& outcome);
  void consider(const Offer& offer, int budget, Choice& best, bool& refused);
  [[nodiscard]] double best_case(const Standing& drafter) const;
  [[nodiscard]] Choice probe(const std::vector<Offer>& offers, int budget, Choice plain);

  std::vector<Standing> drafters_;
  CostModel target_;
  int n_reread_ = 0;
  Company company_;
  CreditLedger credit_;
  std::int64_t n_rounds_ = 0;  // of this request
  int passes_since_plain_ = 0;
  int plain_in_a_row_ = 0;
  bool has_lookups_ = false;
  double looking_ms_ = 0.0;     // what asking all lookups takes, a running mean
  int n_looks_ = 0;             // that it is of
  bool looked_ = true;          // they were asked for this pass
  bool promising_ = false;      // and one of them was expected to pay
  int unpromising_tokens_ = 0;  // emitted since then
  int n_rested_ = 0;            // passes since lookups were asked
  Choice choice_;               // the last one
  double path_rate_ = 1.0;      // that all tokens drafted so far are right
  double miss_rate_ = 0.0;      // that all candidates at the present depth are wrong
  int n_siblings_ = 0;          // of this choice
  std::string_view plain_reason_ = "nothing was drafted yet";
};

}  // namespace specdec
