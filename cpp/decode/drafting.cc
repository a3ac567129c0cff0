#include "decode/drafting.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "decode/memory_lookup.h"
#include "decode/round_trace.h"
#include "decode/stats.h"

namespace specdec {
namespace {

constexpr int kFirstWindow = 16;  // tokens a draft model reads of a long prompt at first

}  // namespace

Drafting::Drafting(std::span<Drafter* const> drafters, Controller* controller,
                   const DecodeRequest& request)
    : controller_(controller),
      constraint_(request.constraint),
      n_prompt_(request.prompt.size()),
      trace_(request.trace),
      record_(controller) {
  const auto is_fixed = [](const Member& member) { return member.lengths.gamma.has_value(); };
  const auto drafts_nothing = [](const Member& member) { return longest_of(member) == 0; };
  for (Drafter* drafter : drafters) {
    members_.emplace_back();
    members_.back().drafter = drafter;
    members_.back().model = drafter->model();
    members_.back().lengths = drafter->lengths();
  }
  fixed_ = std::all_of(members_.begin(), members_.end(), is_fixed);
  SPECDEC_CHECK(controller == nullptr ||
                controller->n_drafters() == static_cast<int>(members_.size()));
  if (members_.empty()) {
    off_reason_ = "no drafter";
  } else if (!request.speculate) {
    off_reason_ = "switched off for this request";
  } else if (std::all_of(members_.begin(), members_.end(), drafts_nothing)) {
    off_reason_ = "the draft length is 0";
  }
  for (Member& member : members_) member.active = off_reason_.empty() && !drafts_nothing(member);
}

bool Drafting::any_active() const {
  return std::any_of(members_.begin(), members_.end(), [](const Member& s) { return s.active; });
}

bool Drafting::varies() const {
  return off_reason_.empty() &&
         (adaptive() || std::any_of(members_.begin(), members_.end(),
                                    [](const Member& s) { return s.begun && s.drafter->keeps(); }));
}

bool Drafting::runs_model() const {
  return off_reason_.empty() && std::any_of(members_.begin(), members_.end(), [](const Member& s) {
           return s.active && s.model != nullptr;
         });
}

void Drafting::begin(DraftSetup setup, std::span<const TokenId> prompt) {
  double ms = 0.0;
  {
    const ScopedMs timer(ms);
    begin_all(std::move(setup), prompt);
  }
  draft_ms_ += ms;
  if (adaptive() && off_reason_.empty()) controller_->debit_beginning(ms);
}

void Drafting::begin_all(DraftSetup setup, std::span<const TokenId> prompt) {
  rereads_ = setup.target != nullptr && setup.target->rereads();
  trees_ = setup.verifier.trees;
  if (setup.target != nullptr) most_tree_rows_ = setup.target->max_tree_rows();
  if (adaptive()) {
    setup.length_rule = &record_;
    // Without a cache a model is to read all there is, again and again.
    setup.first_window = rereads_ ? 0 : kFirstWindow;
    // Any candidates may stand beside a chain where the rule looks at tokens only; the controller
    // reckons with chains else.
    siblings_ = setup.siblings =
        setup.verifier.trees && !setup.verifier.reads_draft_probs && !setup.verifier.reads_top_k;
    controller_->begin_request();
  }
  if (records())
    trace_->begin_request(static_cast<int>(prompt.size()), setup.sampling.temperature,
                          *controller_);
  for (Member& member : members_) {
    if (!member.active) continue;
    // A comb is as many rows per token as it was told; what a tree costs and brings nobody knows.
    setup.verifier.trees = trees_ && (!adaptive() || records() || member.branch() > 1);
    member.drafter->begin(setup, prompt);
    member.begun = true;
  }
}

void Drafting::end_request() {
  if (adaptive() && off_reason_.empty()) controller_->end_request();
  if (records() && off_reason_.empty()) trace_->end_request();
}

std::string Drafting::speculation() const {
  if (!off_reason_.empty()) return "off: " + off_reason_;
  return adaptive() ? controller_->speculation() : "on";
}

// An empty proposal when the drafter failed.
DraftProposal Drafting::ask(Member& member, std::span<const TokenId> committed, int max_tokens,
                            Chance& chance) {
  try {
    DraftProposal proposal = member.drafter->propose(committed, max_tokens, chance);
    SPECDEC_CHECK(proposal.size() <= max_tokens * member.branch() + record_.n_siblings());
    return proposal;
  } catch (const Error& error) {
    give_up(member, error);
    return {};
  }
}

// A plan, or else a proposal, which is empty when the drafter failed.
void Drafting::ask_or_plan(Draft& draft, Member& member, std::span<const TokenId> committed,
                           int max_tokens, Chance& chance) {
  SPECDEC_CHECK(member.model != nullptr);
  try {
    draft.plan = member.model->plan(committed, max_tokens);
  } catch (const Error& error) {
    give_up(member, error);
    return;
  }
  if (draft.plan) {
    planned_ = &member;
    planned_limit_ = max_tokens;
  } else {
    draft.proposal = ask(member, committed, max_tokens, chance);
  }
}

// The drafter drafts no more; called while its error is handled.
void Drafting::give_up(Member& member, const Error& error) {
  if (!is_survivable(error.code())) throw;
  member.active = false;
  const std::string what = "the drafter failed: " + std::string(error.what());
  if (any_active()) {
    failures_ +=
        (failures_.empty() ? "" : "; ") + std::string(member.drafter->name()) + ": " + what;
  } else {
    off_reason_ = what;
  }
}

Drafting::Pending Drafting::pending_of(const DraftProposal& proposal) {
  return {.tokens = proposal.tokens,
          .next = 0,
          .grade = AcceptanceModel::match_grade(proposal.strength)};
}

void Drafting::clear_pass() {
  choice_ = {};
  record_.clear();
  n_unused_ = n_cut_ = 0;
  lost_ms_ = looking_ms_ = 0.0;
  planned_ = nullptr;
  forced_ = false;
}

Draft Drafting::next(std::span<const TokenId> committed, int max_tokens, int n_free_slots,
                     Chance& chance) {
  clear_pass();
  if (!off_reason_.empty()) return {.proposal = {}, .drafter = {}, .reason = off_reason_};
  double ms = 0.0;
  reading_ms_ = 0.0;
  Draft draft;
  {
    const ScopedMs timer(ms);
    draft = records()    ? record(committed, chance)
            : adaptive() ? next_adaptive(committed, max_tokens, n_free_slots, chance)
                         : next_fixed(committed, max_tokens, n_free_slots, chance);
  }
  draft_ms_ += ms;
  pass_draft_ms_ += ms - reading_ms_;
  cut_to_allowed(draft, committed);
  record_.note(draft.proposal, n_cut_ > 0);
  return draft;
}

void Drafting::conclude(Draft& draft) {
  SPECDEC_CHECK(draft.plan.has_value() && planned_ != nullptr);
  double ms = 0.0;
  {
    const ScopedMs timer(ms);
    try {
      draft.proposal = planned_->model->conclude(*draft.plan);
      SPECDEC_CHECK(draft.proposal.tokens.size() <= draft.plan->picks.size());
    } catch (const Error& error) {
      record_.forget_siblings();
      give_up(*planned_, error);
    }
    label(draft, *planned_, planned_limit_);
    if (draft.proposal.empty()) record_.forget_siblings();
  }
  record_.note(draft.proposal);
  n_unused_ = static_cast<int>(draft.plan->picks.size()) - record_.n_drafted();
  add_draft_ms(ms);
}

void Drafting::add_draft_ms(double ms) {
  draft_ms_ += ms;
  pass_draft_ms_ += ms;
}

void Drafting::label(Draft& draft, const Member& member, int limit) const {
  // Allowed because it does not depend on drawn tokens.
  if (draft.proposal.deterministic() && draft.proposal.size() < member.lengths.draft_min)
    draft.proposal = {};
  if (adaptive()) {
    if (!draft.proposal.empty()) draft.drafter = member.drafter->name();
    return;
  }
  if (draft.proposal.empty()) {
    draft.reason = off_reason_.empty() ? "nothing to propose" : std::string_view(off_reason_);
    return;
  }
  draft.drafter = member.drafter->name();
  draft.reason = draft.proposal.size() < limit ? "nothing more to propose"
                 : limit < longest_of(member)  ? "tokens that are left"
                                               : "fixed length";
}

// The first drafter that has something to say: a memory that leads, models, other lookups.
Draft Drafting::next_fixed(std::span<const TokenId> committed, int max_tokens, int n_free_slots,
                           Chance& chance) {
  Draft draft{.proposal = {}, .drafter = {}, .reason = "no room for a draft"};
  const bool leads = members_.front().drafter->name() == kMemoryName;
  const auto turn_of = [&](const Member& member) {
    return leads && &member == &members_.front() ? 0 : member.model != nullptr ? 1 : 2;
  };
  for (const int turn : {0, 1, 2}) {
    for (Member& member : members_) {
      if (!member.active || turn_of(member) != turn) continue;
      const int limit = limit_of(member, max_tokens, n_free_slots);
      if (limit < 1) continue;
      if (member.model != nullptr) {
        ask_or_plan(draft, member, committed, limit, chance);
        if (draft.plan) return draft;
      } else {
        draft.proposal = ask(member, committed, limit, chance);
      }
      label(draft, member, limit);
      if (!draft.proposal.empty()) return draft;
    }
  }
  return draft;
}

Draft Drafting::next_adaptive(std::span<const TokenId> committed, int max_tokens, int n_free_slots,
                              Chance& chance) {
  controller_->set_reread(rereads_ ? static_cast<int>(committed.size()) - 1 : 0);
  read_more(committed, max_tokens);
  const bool asks = controller_->wants_lookups();
  std::vector<DraftProposal> found(members_.size());
  std::vector<Offer> offers;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    Member& member = members_[i];
    const int branch = member.branch();
    const int room = room_of(member, n_free_slots);
    const int limit = std::min({max_tokens, adaptive_longest(member), room});
    const int least = std::max(member.lengths.draft_min, 1);
    if (!member.active || limit < least || (member.model == nullptr && !asks)) continue;
    Offer offer{.drafter = static_cast<int>(i), .n_least = least, .n_candidates = branch};
    if (member.model != nullptr) {
      offer.n_tokens = limit;
      offer.n_behind = member.model->n_behind(committed);
    } else {
      const ScopedMs timer(looking_ms_);
      found[i] = ask(member, committed, limit, chance);
      if (found[i].size() < least || !found[i].is_chain()) continue;
      offer.n_tokens = found[i].size();
      offer.match_length = found[i].strength;
      if (member.pending.tokens.empty()) member.pending = pending_of(found[i]);
    }
    offers.push_back(offer);
  }
  choice_ = controller_->choose(offers, max_tokens);
  Draft draft{.proposal = {}, .drafter = {}, .reason = choice_.reason};
  if (choice_.drafter < 0) return draft;
  const auto chosen = static_cast<std::size_t>(choice_.drafter);
  Member& member = members_[chosen];
  record_.set_bounds(member.lengths.draft_min,
                     std::min(adaptive_longest(member), room_of(member, n_free_slots)));
  if (member.model != nullptr) {
    ask_or_plan(draft, member, committed, choice_.length, chance);
    if (draft.plan) return draft;
  } else {
    draft.proposal = std::move(found[chosen]);
    member.pending = pending_of(draft.proposal);
    draft.proposal.tokens.resize(static_cast<std::size_t>(choice_.length));
    if (!draft.proposal.parents.empty())
      draft.proposal.parents.resize(static_cast<std::size_t>(choice_.length));
  }
  label(draft, member, choice_.length);
  if (draft.proposal.empty()) record_.forget_siblings();
  return draft;
}

// A draft model that began with the end of a long prompt reads the rest once it has earned that.
void Drafting::read_more(std::span<const TokenId> committed, int max_tokens) {
  for (std::size_t i = 0; i < members_.size(); ++i) {
    ModelDrafter* const model = members_[i].model;
    if (!members_[i].active || model == nullptr || model->n_unread() == 0 ||
        !model->can_read_all(committed))
      continue;
    const auto index = static_cast<int>(i);
    const double expected_ms =
        controller_->drafter_cost(index).ms(static_cast<int>(committed.size()));
    if (!controller_->worth_reading(index, expected_ms, max_tokens)) continue;
    double ms = 0.0;
    {
      const ScopedMs timer(ms);
      try {
        model->read_all(committed);
      } catch (const Error& error) {
        if (!is_survivable(error.code())) throw;
      }
    }
    controller_->debit(ms);
    reading_ms_ += ms;
  }
}

// Compares what the lookups said, used or not, and what the model drafted, with the text.
void Drafting::judge(std::span<const TokenId> fresh, std::span<const std::int32_t> accepted) {
  for (std::size_t i = 0; i < members_.size(); ++i) {
    Pending& pending = members_[i].pending;
    for (const TokenId token : fresh) {
      if (pending.next >= pending.tokens.size()) break;
      const bool right = pending.tokens[pending.next] == token;
      controller_->acceptance(static_cast<int>(i))
          .observe(static_cast<int>(pending.next), pending.grade, right);
      pending.next = right ? pending.next + 1 : pending.tokens.size();
    }
    if (pending.next >= pending.tokens.size()) pending = {};
  }
  if (choice_.drafter < 0 || record_.n_drafted() + n_cut_ == 0) return;
  const auto chosen = static_cast<std::size_t>(choice_.drafter);
  if (members_[chosen].model != nullptr) record_.judge(choice_.drafter, accepted);
}

void Drafting::note_reading(const Reading& reading) {
  if (adaptive()) controller_->target_cost().observe_reading(reading);
}

void Drafting::commit(const CommitInfo& info, std::span<const std::int32_t> accepted,
                      double verify_ms, const Reading& reading) {
  double ms = 0.0;
  if (records() && off_reason_.empty()) {
    trace_->end_pass(info.committed.last(static_cast<std::size_t>(info.n_new)), verify_ms);
  } else if (adaptive() && off_reason_.empty()) {
    controller_->observe({.choice = choice_,
                          .n_made = record_.n_chain() + n_cut_,
                          .n_drafted = record_.n_chain(),
                          .n_siblings = record_.n_drafted() - record_.n_chain(),
                          .n_unused = n_unused_,
                          .n_emitted = info.n_new,
                          .forced = forced_,
                          .draft_ms = pass_draft_ms_,
                          .looking_ms = looking_ms_,
                          .verify_ms = verify_ms,
                          .lost_ms = lost_ms_,
                          .reading = reading});
    if (!forced_) judge(info.committed.last(static_cast<std::size_t>(info.n_new)), accepted);
  }
  if (forced_) {
    forced_refused_ = accepted.empty();
    // What the grammar said is no proof of lookups, and what they said of it lies behind.
    for (Member& member : members_) member.pending = {};
  }
  pass_draft_ms_ = 0.0;
  {
    const ScopedMs timer(ms);
    for (Member& member : members_) {
      if (!member.active || !member.begun) continue;
      try {
        member.drafter->commit(info);
      } catch (const Error& error) {
        give_up(member, error);
      }
    }
    align(info.committed);
  }
  draft_ms_ += ms;
  pass_draft_ms_ += ms;  // the next pass pays for it
}

void Drafting::align(std::span<const TokenId> committed) {
  for (Member& member : members_)
    if (member.model != nullptr) member.model->align(committed);
}

}  // namespace specdec
