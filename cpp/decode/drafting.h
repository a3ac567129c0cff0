// The drafters of one request: who drafts next, and how much.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "decode/control/controller.h"
#include "decode/drafter.h"
#include "decode/request.h"

namespace specdec {

struct Draft {
  DraftProposal proposal;   // empty: a plain step
  std::string_view source;  // the drafter's name; empty when nothing was drafted
  std::string_view reason;  // why this length, or none
  // The target's pass takes the draft as it is found: the proposal comes with conclude().
  std::optional<DraftPlan> plan = {};
};

// With a controller (whose sources are the drafters, in order) it adapts; without, drafts have a
// fixed length. A drafter that fails is left out from then on.
class Drafting final : private LengthRule {
 public:
  Drafting(std::span<Drafter* const> drafters, Controller* controller,
           const DecodeRequest& request);

  // May throw what a drafter's begin() throws.
  void begin(DraftSetup setup, std::span<const TokenId> prompt);
  // At most max_tokens tokens; vocab_size and n_free_slots are the target's.
  [[nodiscard]] Draft next(std::span<const TokenId> committed, int max_tokens, int n_free_slots,
                           Chance& chance);
  // Of a draft with a plan, when its chain is made: what is proposed.
  void conclude(Draft& draft);
  // What such a chain took of the time of a pass.
  void add_draft_ms(double ms);
  // After the pass: what became of the last draft. committed holds n_new new tokens; accepted as in
  // Verdict.
  void settle(const CommitInfo& info, std::span<const std::int32_t> accepted, double verify_ms,
              const Reading& reading);
  // Brings every drafter's caches in line, also of those that rest.
  void align(std::span<const TokenId> committed);
  void end_request();

  // What the drafters need to see of the target's rows.
  [[nodiscard]] int wanted_top_k() const;
  [[nodiscard]] bool wants_all_rows() const;
  [[nodiscard]] double draft_ms() const { return draft_ms_; }
  // Whether another run of the request may draft other tokens: lengths follow measured times, or
  // drafters remember what came before.
  [[nodiscard]] bool varies() const;
  // "on" or "off: reason".
  [[nodiscard]] std::string speculation() const;
  // Drafters that failed while others went on; empty: none.
  [[nodiscard]] const std::string& failures() const { return failures_; }

 private:
  // A lookup's proposal that is still being compared with what the target says.
  struct Pending {
    std::vector<TokenId> tokens;
    std::size_t next = 0;
    int grade = 0;
  };
  // A leaf beside a model's chain, in the order of the draft.
  struct Sibling {
    std::int32_t index;  // in the proposal
    int depth;
    int rank;
    int grade;
  };
  struct Source {
    Drafter* drafter = nullptr;
    DraftLengths lengths;
    bool active = true;
    bool begun = false;
    Pending pending;
  };

  [[nodiscard]] bool adaptive() const { return controller_ != nullptr && !fixed_; }
  [[nodiscard]] bool any_active() const;
  [[nodiscard]] DraftProposal ask(Source& source, std::span<const TokenId> committed,
                                  int max_tokens, Chance& chance);
  void ask_or_plan(Draft& draft, Source& source, std::span<const TokenId> committed, int max_tokens,
                   Chance& chance);
  void give_up(Source& source, const Error& error);
  // Whether such a draft is one, and why it is that long.
  void accept(Draft& draft, const Source& source, int limit);
  // Tokens that drafts of this source may have under the controller.
  [[nodiscard]] static int adaptive_longest(const Source& source);
  [[nodiscard]] static Pending pending_of(const DraftProposal& proposal);
  [[nodiscard]] static int longest_of(const Source& source);
  [[nodiscard]] static int limit_of(const Source& source, int max_tokens, int n_free_slots);
  [[nodiscard]] Draft next_fixed(std::span<const TokenId> committed, int max_tokens,
                                 int n_free_slots, Chance& chance);
  [[nodiscard]] Draft next_adaptive(std::span<const TokenId> committed, int max_tokens,
                                    int n_free_slots, Chance& chance);
  void read_more(std::span<const TokenId> committed, int max_tokens);
  void judge(std::span<const TokenId> fresh, std::span<const std::int32_t> accepted);
  void note_chain(const DraftProposal& proposal);
  void judge_model(std::span<const std::int32_t> accepted);
  [[nodiscard]] bool wants_sibling(int n_drafted, int rank, double probability,
                                   double conditional) override;
  [[nodiscard]] bool keep_going(int n_drafted, double probability) override;
  [[nodiscard]] int n_planned_siblings(int n_chain) override;
  void note_sibling(int n_drafted, double conditional) override;

  Controller* controller_;
  bool fixed_ = false;    // every drafter has a fixed length
  bool rereads_ = false;  // passes read the whole context again
  std::vector<Source> sources_;
  std::string off_reason_;  // not empty: nothing drafts
  std::string failures_;
  double draft_ms_ = 0.0;       // in all
  double pass_draft_ms_ = 0.0;  // since the last pass was observed
  double reading_ms_ = 0.0;     // of it, a draft model's reading of more context: debited apart
  Choice choice_;               // of this pass
  int n_drafted_ = 0;           // of this pass, siblings included
  std::vector<std::int32_t> chain_;  // of these, the first candidates
  int longest_ = 0;                  // that this may become, siblings included
  int shortest_ = 0;                 // that is of any use
  Source* planned_ = nullptr;        // whose plan this draft is
  int planned_limit_ = 0;            // tokens it may have
  int n_unused_ = 0;                 // rows of the pass that no proposal used
  std::vector<int> grades_;          // of a model's tokens along the chain
  std::vector<Sibling> siblings_;
};

}  // namespace specdec
