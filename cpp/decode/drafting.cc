#include "decode/drafting.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "decode/stats.h"

namespace specdec {
namespace {

constexpr int kAdaptiveMax = 15;  // tokens of an adaptive draft: 16 rows
constexpr int kFirstWindow = 16;  // tokens a draft model reads of a long prompt at first

// Errors of a drafter that end its work but not the request.
bool is_survivable(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNumerical:
    case ErrorCode::kResource:
    case ErrorCode::kContextFull:
    case ErrorCode::kUnsupported:
    case ErrorCode::kDevice:
      return true;
    default:
      return false;
  }
}

}  // namespace

Drafting::Drafting(std::span<Drafter* const> drafters, Controller* controller,
                   const DecodeRequest& request)
    : controller_(controller) {
  const auto is_fixed = [](const Source& source) { return source.lengths.gamma.has_value(); };
  const auto drafts_nothing = [](const Source& source) { return longest_of(source) == 0; };
  for (Drafter* drafter : drafters) {
    sources_.emplace_back();
    sources_.back().drafter = drafter;
    sources_.back().lengths = drafter->lengths();
  }
  fixed_ = std::all_of(sources_.begin(), sources_.end(), is_fixed);
  SPECDEC_CHECK(controller == nullptr ||
                controller->n_sources() == static_cast<int>(sources_.size()));
  if (sources_.empty()) {
    off_reason_ = "no drafter";
  } else if (!request.speculate) {
    off_reason_ = "switched off for this request";
  } else if (std::all_of(sources_.begin(), sources_.end(), drafts_nothing)) {
    off_reason_ = "the draft length is 0";
  }
  for (Source& source : sources_) source.active = off_reason_.empty() && !drafts_nothing(source);
}

bool Drafting::any_active() const {
  return std::any_of(sources_.begin(), sources_.end(), [](const Source& s) { return s.active; });
}

bool Drafting::varies() const {
  return off_reason_.empty() &&
         (adaptive() || std::any_of(sources_.begin(), sources_.end(),
                                    [](const Source& s) { return s.begun && s.drafter->keeps(); }));
}

void Drafting::begin(DraftSetup setup, std::span<const TokenId> prompt) {
  const ScopedMs timer(draft_ms_);
  rereads_ = setup.target != nullptr && setup.target->rereads();
  if (adaptive()) {
    setup.length_rule = this;
    // Without a cache a model is to read all there is, again and again.
    setup.first_window = rereads_ ? 0 : kFirstWindow;
    // Any candidates may stand beside a chain where the rule looks at tokens only; the controller
    // reckons with chains else.
    setup.siblings =
        setup.verifier.trees && !setup.verifier.reads_draft_probs && !setup.verifier.reads_top_k;
    controller_->begin_request();
  }
  const bool trees = setup.verifier.trees;
  for (Source& source : sources_) {
    if (!source.active) continue;
    // A comb is as many rows per token as it was told; what a tree costs and brings nobody knows.
    setup.verifier.trees = trees && (!adaptive() || source.drafter->branch() > 1);
    source.drafter->begin(setup, prompt);
    source.begun = true;
  }
}

void Drafting::end_request() {
  if (adaptive() && off_reason_.empty()) controller_->end_request();
}

int Drafting::wanted_top_k() const {
  int top_k = 0;
  for (const Source& source : sources_) {
    if (source.active) top_k = std::max(top_k, source.drafter->wanted_top_k());
  }
  return top_k;
}

bool Drafting::wants_all_rows() const {
  return std::any_of(sources_.begin(), sources_.end(),
                     [](const Source& s) { return s.active && s.drafter->wants_all_rows(); });
}

std::string Drafting::speculation() const {
  if (!off_reason_.empty()) return "off: " + off_reason_;
  return adaptive() ? controller_->speculation() : "on";
}

// An empty proposal when the drafter failed.
DraftProposal Drafting::ask(Source& source, std::span<const TokenId> committed, int max_tokens,
                            Chance& chance) {
  try {
    DraftProposal proposal = source.drafter->propose(committed, max_tokens, chance);
    SPECDEC_CHECK(proposal.size() <=
                  max_tokens * source.drafter->branch() + static_cast<int>(siblings_.size()));
    return proposal;
  } catch (const Error& error) {
    give_up(source, error);
    return {};
  }
}

// A plan, or else a proposal, which is empty when the drafter failed.
void Drafting::ask_or_plan(Draft& draft, Source& source, std::span<const TokenId> committed,
                           int max_tokens, Chance& chance) {
  try {
    draft.plan = source.drafter->plan(committed, max_tokens);
  } catch (const Error& error) {
    give_up(source, error);
    return;
  }
  if (draft.plan) {
    planned_ = &source;
    planned_limit_ = max_tokens;
  } else {
    draft.proposal = ask(source, committed, max_tokens, chance);
  }
}

// The drafter drafts no more; called while its error is handled.
void Drafting::give_up(Source& source, const Error& error) {
  if (!is_survivable(error.code())) throw;
  source.active = false;
  const std::string what = "the drafter failed: " + std::string(error.what());
  if (any_active()) {
    failures_ +=
        (failures_.empty() ? "" : "; ") + std::string(source.drafter->name()) + ": " + what;
  } else {
    off_reason_ = what;
  }
}

Drafting::Pending Drafting::pending_of(const DraftProposal& proposal) {
  return {.tokens = proposal.tokens,
          .next = 0,
          .grade = AcceptanceModel::match_grade(proposal.strength)};
}

// Of a drafter without the controller.
int Drafting::longest_of(const Source& source) {
  const DraftLengths& lengths = source.lengths;
  return lengths.gamma.value_or(lengths.draft_max.value_or(source.drafter->default_draft_max()));
}

// A model goes on as long as it seems worth it.
int Drafting::adaptive_longest(const Source& source) {
  if (!source.lengths.draft_max && source.drafter->uses_model()) return kAdaptiveMax;
  return longest_of(source);
}

int Drafting::limit_of(const Source& source, int max_tokens, int n_free_slots) {
  int limit = std::min(longest_of(source), max_tokens);
  // Rows of siblings need room in the cache until they are dropped.
  const int branch = source.drafter->branch();
  if (branch > 1) limit = std::min(limit, n_free_slots / branch);
  return limit < source.lengths.draft_min ? 0 : limit;
}

Draft Drafting::next(std::span<const TokenId> committed, int max_tokens, int n_free_slots,
                     Chance& chance) {
  choice_ = {};
  n_drafted_ = 0;
  chain_.clear();
  n_unused_ = 0;
  planned_ = nullptr;
  grades_.clear();
  siblings_.clear();
  if (!off_reason_.empty()) return {.proposal = {}, .source = {}, .reason = off_reason_};
  double ms = 0.0;
  reading_ms_ = 0.0;
  Draft draft;
  {
    const ScopedMs timer(ms);
    draft = adaptive() ? next_adaptive(committed, max_tokens, n_free_slots, chance)
                       : next_fixed(committed, max_tokens, n_free_slots, chance);
  }
  draft_ms_ += ms;
  pass_draft_ms_ += ms - reading_ms_;
  note_chain(draft.proposal);
  return draft;
}

void Drafting::conclude(Draft& draft) {
  SPECDEC_CHECK(draft.plan.has_value() && planned_ != nullptr);
  double ms = 0.0;
  {
    const ScopedMs timer(ms);
    try {
      draft.proposal = planned_->drafter->conclude(*draft.plan);
      SPECDEC_CHECK(draft.proposal.tokens.size() <= draft.plan->sources.size());
    } catch (const Error& error) {
      siblings_.clear();
      give_up(*planned_, error);
    }
    accept(draft, *planned_, planned_limit_);
    if (draft.proposal.empty()) siblings_.clear();
  }
  note_chain(draft.proposal);
  n_unused_ = static_cast<int>(draft.plan->sources.size()) - n_drafted_;
  add_draft_ms(ms);
}

void Drafting::note_chain(const DraftProposal& proposal) {
  SPECDEC_CHECK(proposal.parents.empty() || proposal.parents.size() == proposal.tokens.size());
  n_drafted_ = proposal.size();
  chain_.clear();
  // Siblings stand one behind the other.
  for (int i = 0; i < n_drafted_; ++i) {
    if (i == 0 || proposal.parent(i) != proposal.parent(i - 1)) chain_.push_back(i);
  }
}

void Drafting::add_draft_ms(double ms) {
  draft_ms_ += ms;
  pass_draft_ms_ += ms;
}

void Drafting::accept(Draft& draft, const Source& source, int limit) {
  // Allowed because it does not depend on drawn tokens.
  if (draft.proposal.deterministic() && draft.proposal.size() < source.lengths.draft_min)
    draft.proposal = {};
  if (adaptive()) {
    if (!draft.proposal.empty()) draft.source = source.drafter->name();
    return;
  }
  if (draft.proposal.empty()) {
    draft.reason = off_reason_.empty() ? "nothing to propose" : std::string_view(off_reason_);
    return;
  }
  draft.source = source.drafter->name();
  draft.reason = draft.proposal.size() < limit ? "nothing more to propose"
                 : limit < longest_of(source)  ? "tokens that are left"
                                               : "fixed length";
}

// The first drafter that has something to say; models first.
Draft Drafting::next_fixed(std::span<const TokenId> committed, int max_tokens, int n_free_slots,
                           Chance& chance) {
  Draft draft{.proposal = {}, .source = {}, .reason = "no room for a draft"};
  for (const bool models : {true, false}) {
    for (Source& source : sources_) {
      if (!source.active || source.drafter->uses_model() != models) continue;
      const int limit = limit_of(source, max_tokens, n_free_slots);
      if (limit < 1) continue;
      ask_or_plan(draft, source, committed, limit, chance);
      if (draft.plan) return draft;
      accept(draft, source, limit);
      if (!draft.proposal.empty()) return draft;
    }
  }
  return draft;
}

Draft Drafting::next_adaptive(std::span<const TokenId> committed, int max_tokens, int n_free_slots,
                              Chance& chance) {
  controller_->set_reread(rereads_ ? static_cast<int>(committed.size()) - 1 : 0);
  read_more(committed, max_tokens);
  std::vector<DraftProposal> found(sources_.size());
  std::vector<Offer> offers;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    Source& source = sources_[i];
    const int branch = source.drafter->branch();
    const int limit = std::min({max_tokens, adaptive_longest(source), n_free_slots / branch});
    const int least = std::max(source.lengths.draft_min, 1);
    if (!source.active || limit < least) continue;
    Offer offer{.source = static_cast<int>(i), .n_least = least, .n_candidates = branch};
    if (source.drafter->uses_model()) {
      offer.n_tokens = limit;
      offer.n_behind = source.drafter->n_behind(committed);
    } else {
      found[i] = ask(source, committed, limit, chance);
      if (found[i].size() < least || !found[i].is_chain()) continue;
      offer.n_tokens = found[i].size();
      offer.match_length = found[i].strength;
      if (source.pending.tokens.empty()) source.pending = pending_of(found[i]);
    }
    offers.push_back(offer);
  }
  choice_ = controller_->choose(offers, max_tokens);
  Draft draft{.proposal = {}, .source = {}, .reason = choice_.reason};
  if (choice_.source < 0) return draft;
  const auto chosen = static_cast<std::size_t>(choice_.source);
  Source& source = sources_[chosen];
  longest_ = std::min(adaptive_longest(source), n_free_slots / source.drafter->branch());
  shortest_ = source.lengths.draft_min;
  if (source.drafter->uses_model()) {
    ask_or_plan(draft, source, committed, choice_.length, chance);
    if (draft.plan) return draft;
  } else {
    draft.proposal = std::move(found[chosen]);
    source.pending = pending_of(draft.proposal);
    draft.proposal.tokens.resize(static_cast<std::size_t>(choice_.length));
    if (!draft.proposal.parents.empty())
      draft.proposal.parents.resize(static_cast<std::size_t>(choice_.length));
  }
  accept(draft, source, choice_.length);
  if (draft.proposal.empty()) siblings_.clear();
  return draft;
}

// A draft model that began with the end of a long prompt reads the rest once it has earned that.
void Drafting::read_more(std::span<const TokenId> committed, int max_tokens) {
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    Drafter& drafter = *sources_[i].drafter;
    if (!sources_[i].active || drafter.n_unread() == 0) continue;
    const auto source = static_cast<int>(i);
    const double expected_ms =
        controller_->source_cost(source).ms(static_cast<int>(committed.size()));
    if (!controller_->worth_reading(source, expected_ms, max_tokens)) continue;
    double ms = 0.0;
    {
      const ScopedMs timer(ms);
      try {
        drafter.read_all(committed);
      } catch (const Error& error) {
        if (!is_survivable(error.code())) throw;
      }
    }
    controller_->debit(ms);
    reading_ms_ += ms;
  }
}

bool Drafting::wants_sibling(int n_drafted, int rank, double probability, double conditional) {
  const auto index = static_cast<std::int32_t>(n_drafted + static_cast<int>(siblings_.size()));
  if (index >= longest_ || !controller_->wants_sibling(n_drafted, rank, probability, conditional))
    return false;
  siblings_.push_back({.index = index,
                       .depth = n_drafted - 1,
                       .rank = rank,
                       .grade = AcceptanceModel::confidence_grade(conditional)});
  return true;
}

bool Drafting::keep_going(int n_drafted, double probability) {
  grades_.push_back(AcceptanceModel::confidence_grade(probability));
  const bool goes_on = controller_->keep_going(n_drafted, probability);
  return n_drafted + static_cast<int>(siblings_.size()) < longest_ &&
         (goes_on || n_drafted < shortest_);
}

int Drafting::n_planned_siblings(int n_chain) {
  const int room = std::min(longest_, kAdaptiveMax) - n_chain;
  return std::clamp(controller_->planned_siblings(n_chain), 0, std::max(room, 0));
}

void Drafting::note_sibling(int n_drafted, double conditional) {
  siblings_.push_back({.index = n_drafted + static_cast<std::int32_t>(siblings_.size()),
                       .depth = n_drafted - 1,
                       .rank = 1,
                       .grade = AcceptanceModel::confidence_grade(conditional)});
  controller_->note_sibling();
}

// Compares what the lookups said, used or not, and what the model drafted, with the text.
void Drafting::judge(std::span<const TokenId> fresh, std::span<const std::int32_t> accepted) {
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    Pending& pending = sources_[i].pending;
    for (const TokenId token : fresh) {
      if (pending.next >= pending.tokens.size()) break;
      const bool right = pending.tokens[pending.next] == token;
      controller_->acceptance(static_cast<int>(i))
          .observe(static_cast<int>(pending.next), pending.grade, right);
      pending.next = right ? pending.next + 1 : pending.tokens.size();
    }
    if (pending.next >= pending.tokens.size()) pending = {};
  }
  if (choice_.source < 0 || n_drafted_ == 0) return;
  const auto chosen = static_cast<std::size_t>(choice_.source);
  if (sources_[chosen].drafter->uses_model()) judge_model(accepted);
}

void Drafting::judge_model(std::span<const std::int32_t> accepted) {
  const auto is_last = [&](const Sibling& sibling) {
    return !accepted.empty() && sibling.index == accepted.back();
  };
  const bool by_sibling =
      !accepted.empty() && !std::binary_search(chain_.begin(), chain_.end(), accepted.back());
  const int n_right = static_cast<int>(accepted.size()) - (by_sibling ? 1 : 0);  // of the chain
  const int n_chain = static_cast<int>(chain_.size());
  AcceptanceModel& acceptance = controller_->acceptance(choice_.source);
  for (int i = 0; i < n_chain && i <= n_right; ++i) {
    const auto at = static_cast<std::size_t>(i);
    acceptance.observe(i, at < grades_.size() ? grades_[at] : AcceptanceModel::kGrades / 2,
                       i < n_right);
  }
  for (const Sibling& sibling : siblings_) {
    if (sibling.depth != n_right) continue;
    controller_->siblings(choice_.source)
        .observe(sibling.rank - 1, sibling.grade, is_last(sibling));
    if (is_last(sibling)) return;
  }
}

void Drafting::settle(const CommitInfo& info, std::span<const std::int32_t> accepted,
                      double verify_ms, const Reading& reading) {
  double ms = 0.0;
  if (adaptive() && off_reason_.empty()) {
    controller_->observe({.choice = choice_,
                          .n_drafted = static_cast<int>(chain_.size()),
                          .n_siblings = n_drafted_ - static_cast<int>(chain_.size()),
                          .n_unused = n_unused_,
                          .n_emitted = info.n_new,
                          .draft_ms = pass_draft_ms_,
                          .verify_ms = verify_ms,
                          .reading = reading});
    judge(info.committed.last(static_cast<std::size_t>(info.n_new)), accepted);
  }
  pass_draft_ms_ = 0.0;
  {
    const ScopedMs timer(ms);
    for (Source& source : sources_) {
      if (source.active && source.begun) source.drafter->commit(info);
    }
    align(info.committed);
  }
  draft_ms_ += ms;
  pass_draft_ms_ += ms;  // the next pass pays for it
}

void Drafting::align(std::span<const TokenId> committed) {
  for (Source& source : sources_) source.drafter->align(committed);
}

}  // namespace specdec
