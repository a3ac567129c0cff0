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
#include "decode/draft_record.h"
#include "decode/drafter.h"
#include "decode/request.h"

namespace specdec {

class RoundTrace;

struct Draft {
  DraftProposal proposal;    // empty: a plain step
  std::string_view drafter;  // its name; empty when nothing was drafted
  std::string_view reason;   // why this length, or none
  // The target's pass takes the draft as it is found: the proposal comes with conclude().
  std::optional<DraftPlan> plan = {};
};

// With a controller (which knows the drafters by their order) it adapts; without, drafts have a
// fixed length. A drafter that fails is left out from then on.
class Drafting {
 public:
  Drafting(std::span<Drafter* const> drafters, Controller* controller,
           const DecodeRequest& request);
  Drafting(const Drafting&) = delete;  // drafters know its record
  Drafting& operator=(const Drafting&) = delete;

  // May throw what a drafter's begin() throws.
  void begin(DraftSetup setup, std::span<const TokenId> prompt);
  // At most max_tokens tokens; vocab_size and n_free_slots are the target's.
  [[nodiscard]] Draft next(std::span<const TokenId> committed, int max_tokens, int n_free_slots,
                           Chance& chance);
  // What the request's constraint makes certain, at most max_tokens; empty: nothing, or no drafts
  // are wanted.
  [[nodiscard]] Draft forced(std::span<const TokenId> generated, int max_tokens);
  // Of a draft with a plan, when its steps are made: what is proposed.
  void conclude(Draft& draft);
  // The draft at hand is not going to be verified, a pass over its rows took `ms` in vain: it
  // counts as refused.
  void drop_draft(double ms);
  // What such steps took of the time of a pass.
  void add_draft_ms(double ms);
  // Of n_cached tokens of the prompt that the target need not read, so many: those whose taps a
  // drafter lacks are read again where they are few.
  [[nodiscard]] int n_kept(std::span<const TokenId> prompt, int n_cached);
  void read(const ReadInfo& info);
  // How rows of the text share experts.
  void note_reading(const Reading& reading);
  // After the pass: what became of the last draft. committed holds n_new new tokens; accepted as in
  // Verdict.
  void commit(const CommitInfo& info, std::span<const std::int32_t> accepted, double verify_ms,
              const Reading& reading);
  // Brings every drafter's caches in line, also of those that rest.
  void align(std::span<const TokenId> committed);
  void end_request();

  // What the drafters need to see of the target's rows.
  [[nodiscard]] std::span<const std::int32_t> wanted_taps() const;
  [[nodiscard]] int wanted_top_k() const;
  [[nodiscard]] bool wants_all_rows() const;
  [[nodiscard]] double draft_ms() const { return draft_ms_; }
  // Whether another run of the request may draft other tokens: lengths follow measured times, or
  // drafters remember what came before.
  [[nodiscard]] bool varies() const;
  // Whether one with a model is going to draft.
  [[nodiscard]] bool runs_model() const;
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
  struct Member {
    Drafter* drafter = nullptr;
    ModelDrafter* model = nullptr;  // the same, of one with a model

    [[nodiscard]] int branch() const { return model != nullptr ? model->branch() : 1; }
    DraftLengths lengths;
    bool active = true;
    bool begun = false;
    Pending pending;
  };

  void begin_all(DraftSetup setup, std::span<const TokenId> prompt);
  [[nodiscard]] bool adaptive() const { return controller_ != nullptr && !fixed_; }
  [[nodiscard]] bool any_active() const;
  [[nodiscard]] DraftProposal ask(Member& member, std::span<const TokenId> committed,
                                  int max_tokens, Chance& chance);
  void ask_or_plan(Draft& draft, Member& member, std::span<const TokenId> committed, int max_tokens,
                   Chance& chance);
  void clear_pass();
  [[nodiscard]] bool records() const { return trace_ != nullptr && adaptive(); }
  // Asks all of them, for the trace; nothing is drafted.
  [[nodiscard]] Draft record(std::span<const TokenId> committed, Chance& chance);
  void give_up(Member& member, const Error& error);
  // Drops a draft that is too short to be one, and says who made it and why it is that long.
  void label(Draft& draft, const Member& member, int limit) const;
  // Shortens a draft to what the constraint allows, where that does not bias the output.
  void cut_to_allowed(Draft& draft, std::span<const TokenId> committed);
  // Tokens that drafts of this member may have under the controller.
  [[nodiscard]] static int adaptive_longest(const Member& member);
  [[nodiscard]] static Pending pending_of(const DraftProposal& proposal);
  [[nodiscard]] static int longest_of(const Member& member);
  // Tokens along the chain, as far as the cache and a pass have room for all candidates.
  [[nodiscard]] int room_of(const Member& member, int n_free_slots) const;
  [[nodiscard]] int limit_of(const Member& member, int max_tokens, int n_free_slots) const;
  [[nodiscard]] Draft next_fixed(std::span<const TokenId> committed, int max_tokens,
                                 int n_free_slots, Chance& chance);
  [[nodiscard]] Draft next_adaptive(std::span<const TokenId> committed, int max_tokens,
                                    int n_free_slots, Chance& chance);
  void read_more(std::span<const TokenId> committed, int max_tokens);
  void judge(std::span<const TokenId> fresh, std::span<const std::int32_t> accepted);

  Controller* controller_;
  TokenConstraint* constraint_;
  std::size_t n_prompt_;
  RoundTrace* trace_;            // null: nobody records
  bool forced_ = false;          // this draft is none of the drafters'
  bool forced_refused_ = false;  // at its first token, and what is fixed there goes on
  bool fixed_ = false;           // every drafter has a fixed length
  bool rereads_ = false;         // passes read the whole context again
  bool trees_ = false;           // the verifier takes them
  bool siblings_ = false;        // and models may make them
  int most_tree_rows_ = kMaxBatchRows;
  std::vector<Member> members_;
  std::string off_reason_;  // not empty: nothing drafts
  std::string failures_;
  double draft_ms_ = 0.0;       // in all
  double pass_draft_ms_ = 0.0;  // since the last pass was observed
  double reading_ms_ = 0.0;     // of it, a draft model's reading of more context: debited apart
  Choice choice_;               // of this pass
  DraftRecord record_;          // likewise
  Member* planned_ = nullptr;   // whose plan this draft is
  int planned_limit_ = 0;       // tokens it may have
  int n_unused_ = 0;            // rows of the pass that no proposal used
  int n_cut_ = 0;               // drafted tokens that the constraint refused
  double lost_ms_ = 0.0;        // > 0: of a pass that gave nothing for the draft
  double looking_ms_ = 0.0;     // of this pass, asking lookups
};

}  // namespace specdec
