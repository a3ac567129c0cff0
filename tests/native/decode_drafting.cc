// Drafting alone, without a target: what a controller learns of passes that were made up.
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "decode/drafting.h"
#include "decode_bindings.h"
#include "decode_toy.h"
#include "sampling/chance.h"

namespace py = pybind11;
using namespace specdec;

namespace {

constexpr int kMatch = 12;

class Told final : public Drafter {
 public:
  std::string_view name() const override { return "told"; }
  DraftLengths lengths() const override { return {}; }
  int default_draft_max() const override { return 8; }
  void begin(const DraftSetup&, std::span<const TokenId>) override {}
  DraftProposal propose(std::span<const TokenId>, int, Chance&) override {
    DraftProposal proposal;
    proposal.tokens = tokens;
    proposal.strength = kMatch;
    return proposal;
  }
  void reset() override {}

  std::vector<TokenId> tokens;
};

class Forcing final : public TokenConstraint {
 public:
  void allow(std::span<const TokenId>, std::span<std::uint32_t>) override {}
  std::size_t n_allowed(std::span<const TokenId>, std::span<const TokenId> next) override {
    return std::min(next.size(), most);
  }
  std::vector<TokenId> forced(std::span<const TokenId>) override { return tokens; }

  std::vector<TokenId> tokens;
  std::size_t most = 1000;
};

DraftLengths told_lengths() {
  DraftLengths lengths;
  lengths.draft_min = 4;
  return lengths;
}

// Drafts what it was told, as far as it is asked for.
class ToldModel final : public ModelDrafter {
 public:
  std::string_view name() const override { return "told"; }
  DraftLengths lengths() const override { return told_lengths(); }
  int default_draft_max() const override { return 8; }
  void begin(const DraftSetup&, std::span<const TokenId>) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(begin_ms));
  }
  DraftProposal propose(std::span<const TokenId>, int max_tokens, Chance&) override {
    DraftProposal proposal;
    proposal.tokens = {5, 6, 7, 8};
    proposal.tokens.resize(std::min<std::size_t>(4, static_cast<std::size_t>(max_tokens)));
    return proposal;
  }
  void align(std::span<const TokenId>) override {}
  void reset() override {}

  int begin_ms = 0;
};

using Tokens = std::vector<TokenId>;

// passes: what is forced, else what the lookup says, and what the pass brings. How often the tokens
// of such a lookup are right, by position.
std::vector<double> rates_after(const std::vector<std::tuple<Tokens, Tokens, Tokens>>& passes) {
  Told told;
  Forcing forcing;
  Drafter* const drafter = &told;
  Controller controller({{.name = "told", .lookup = true}});
  DecodeRequest request;
  request.prompt = {1};
  request.constraint = &forcing;
  Drafting drafting({&drafter, 1}, &controller, request);
  DraftSetup setup;
  setup.vocab_size = 1000;
  drafting.begin(setup, request.prompt);
  Tokens committed = request.prompt;
  RngChance chance(0, 0, 0, RngStream::kDraft);
  for (const auto& [forced, offered, emitted] : passes) {
    forcing.tokens = forced;
    told.tokens = offered;
    const Draft draft = drafting.forced(std::span<const TokenId>(committed).subspan(1), 16);
    if (draft.proposal.empty()) (void)drafting.next(committed, 16, 100, chance);
    committed.insert(committed.end(), emitted.begin(), emitted.end());
    drafting.commit({.committed = committed,
                     .n_new = static_cast<int>(emitted.size()),
                     .target_top_k = {},
                     .row_tokens = {},
                     .row_top_k = {},
                     .taps = {}},
                    {}, 1.0, {});
  }
  std::vector<double> rates;
  for (int position = 0; position < 4; ++position)
    rates.push_back(controller.acceptance(0).rate(position, AcceptanceModel::match_grade(kMatch)));
  return rates;
}

// A model drafts four tokens, of which the constraint leaves `most`, and `n_right` of these are
// right. How often it is right by position, whatever a draft says of itself.
std::vector<double> rates_after_cut(std::size_t most, int n_right) {
  ToldModel told;
  Forcing forcing;
  forcing.most = most;
  Drafter* const drafter = &told;
  Controller controller({{.name = "told", .lookup = false}});
  controller.target_cost().calibrate({{1, 10.0}, {2, 10.1}, {8, 10.7}});
  controller.drafter_cost(0).calibrate({{1, 0.1}});
  DecodeRequest request;
  request.prompt = {1};
  request.constraint = &forcing;
  Drafting drafting({&drafter, 1}, &controller, request);
  DraftSetup setup;
  setup.vocab_size = 1000;
  drafting.begin(setup, request.prompt);
  RngChance chance(0, 0, 0, RngStream::kDraft);
  const Draft draft = drafting.next(request.prompt, 16, 100, chance);
  if (draft.proposal.tokens.size() != most) throw std::logic_error("another draft than expected");
  Tokens committed = {1, 5, 6, 7, 8};
  committed.resize(static_cast<std::size_t>(n_right) + 1);
  committed.push_back(99);
  std::vector<std::int32_t> accepted;
  for (int i = 0; i < n_right; ++i) accepted.push_back(i);
  drafting.commit({.committed = committed, .n_new = n_right + 1, .target_top_k = {}}, accepted,
                  10.4, {});
  std::vector<double> rates;
  for (int position = 0; position < 4; ++position)
    rates.push_back(controller.acceptance(0).rate(position));
  return rates;
}

struct Dropped {
  double rate;      // that its first token is right
  double earned;    // credit, in milliseconds
  double plain_ms;  // a pass of one row
};

// Of a draft of four tokens: it is refused, or dropped because a pass over its rows gave nothing.
Dropped after_refusal(bool lookup, bool dropped) {
  Told told;
  ToldModel model;
  told.tokens = {5, 6, 7, 8};
  Drafter* const drafter = lookup ? static_cast<Drafter*>(&told) : &model;
  Controller controller({{.name = "told", .lookup = lookup}});
  controller.target_cost().calibrate({{1, 10.0}, {2, 10.1}, {8, 10.7}});
  controller.drafter_cost(0).calibrate({{1, 0.1}});
  DecodeRequest request;
  request.prompt = {1};
  Drafting drafting({&drafter, 1}, &controller, request);
  DraftSetup setup;
  setup.vocab_size = 1000;
  drafting.begin(setup, request.prompt);
  RngChance chance(0, 0, 0, RngStream::kDraft);
  const Draft draft = drafting.next(request.prompt, 16, 100, chance);
  if (draft.proposal.tokens.size() != 4) throw std::logic_error("another draft than expected");
  const double before = controller.state().credit_ms;
  if (dropped) drafting.drop_draft(10.4);
  const Tokens committed = {1, dropped ? 5 : 99};
  drafting.commit({.committed = committed, .n_new = 1, .target_top_k = {}}, {},
                  dropped ? 10.0 : 10.4, {});
  return {.rate = controller.acceptance(0).rate(0, AcceptanceModel::match_grade(kMatch)),
          .earned = controller.state().credit_ms - before,
          .plain_ms = controller.target_cost().ms(1)};
}

// Drafts tokens and leaves beside them for as long as it may.
class EagerModel final : public ModelDrafter {
 public:
  explicit EagerModel(int draft_max) { lengths_.draft_max = draft_max; }
  std::string_view name() const override { return "eager"; }
  DraftLengths lengths() const override { return lengths_; }
  int default_draft_max() const override { return 8; }
  void begin(const DraftSetup& setup, std::span<const TokenId>) override { setup_ = setup; }
  DraftProposal propose(std::span<const TokenId>, int max_tokens, Chance&) override {
    DraftProposal proposal;
    std::int32_t parent = -1;
    for (int n = 1; n <= max_tokens; ++n) {
      const std::int32_t at = proposal.size();
      proposal.tokens.push_back(n);
      proposal.parents.push_back(parent);
      if (setup_.siblings && setup_.length_rule->wants_sibling(n, 1, 0.5, 0.9)) {
        proposal.tokens.push_back(100 + n);
        proposal.parents.push_back(parent);
      }
      if (!setup_.length_rule->keep_going(n, 0.5)) break;
      parent = at;
    }
    return proposal;
  }
  void align(std::span<const TokenId>) override {}
  void reset() override {}

 private:
  DraftLengths lengths_;
  DraftSetup setup_;
};

// Tokens of a draft where more rows cost next to nothing, and whether it is a chain.
std::pair<int, bool> eager_draft(int draft_max, int max_tree_rows, bool trees) {
  const specdec::testing::ToyScorer target({.max_tree_rows = max_tree_rows});
  EagerModel model(draft_max);
  Drafter* const drafter = &model;
  Controller controller({{.name = "eager", .lookup = false}});
  controller.target_cost().calibrate({{1, 10.0}, {64, 10.001}});
  controller.drafter_cost(0).calibrate({{1, 0.001}});
  for (int i = 0; i < 1000; ++i) {
    for (int position = 0; position < draft_max; ++position) {
      for (int grade = 0; grade < AcceptanceModel::kGrades; ++grade)
        controller.acceptance(0).observe(position, grade, i % 20 > 0);
    }
    for (int grade = 0; grade < AcceptanceModel::kGrades; ++grade)
      controller.siblings(0).observe(0, grade, true);
  }
  DecodeRequest request;
  request.prompt = {1};
  Drafting drafting({&drafter, 1}, &controller, request);
  DraftSetup setup;
  setup.vocab_size = 1000;
  setup.verifier.trees = trees;
  setup.target = &target;
  drafting.begin(setup, request.prompt);
  RngChance chance(0, 0, 0, RngStream::kDraft);
  const Draft draft = drafting.next(request.prompt, 200, 200, chance);
  return {draft.proposal.size(), draft.proposal.is_chain()};
}

// How often tokens are forced, and what was earned by it, in milliseconds; passes: what is fixed,
// and how many tokens of it are right.
std::pair<std::vector<int>, double> forced_in(const std::vector<std::pair<Tokens, int>>& passes) {
  Told told;
  Forcing forcing;
  Drafter* const drafter = &told;
  Controller controller({{.name = "told", .lookup = true}});
  controller.target_cost().calibrate({{1, 1000.0}, {8, 1000.0}});
  DecodeRequest request;
  request.prompt = {1};
  request.constraint = &forcing;
  Drafting drafting({&drafter, 1}, &controller, request);
  drafting.begin({}, request.prompt);
  Tokens committed = request.prompt;
  RngChance chance(0, 0, 0, RngStream::kDraft);
  std::vector<int> n_forced;
  for (const auto& [fixed, n_right] : passes) {
    forcing.tokens = fixed;
    const Draft draft = drafting.forced(std::span<const TokenId>(committed).subspan(1), 16);
    n_forced.push_back(draft.proposal.size());
    if (draft.proposal.empty()) (void)drafting.next(committed, 16, 100, chance);
    std::vector<std::int32_t> accepted;
    for (int i = 0; i < n_right && i < draft.proposal.size(); ++i) accepted.push_back(i);
    const int n_new = static_cast<int>(accepted.size()) + 1;
    committed.resize(committed.size() + static_cast<std::size_t>(n_new), 3);
    drafting.commit({.committed = committed, .n_new = n_new, .target_top_k = {}}, accepted, 1000.0,
                    {});
  }
  return {n_forced, controller.state().credit_ms};
}

// What the beginning of a request with a drafter that takes `ms` for it leaves of the credit.
double credit_after_beginning(int ms, double earned_ms) {
  ToldModel told;
  told.begin_ms = ms;
  Drafter* const drafter = &told;
  Controller controller({{.name = "told", .lookup = false}});
  controller.restore({.credit_ms = earned_ms, .plain_ms = 0.0});
  DecodeRequest request;
  request.prompt = {1};
  Drafting drafting({&drafter, 1}, &controller, request);
  drafting.begin({}, request.prompt);
  return controller.state().credit_ms;
}

}  // namespace

void bind_drafting(py::module_& m) {
  m.def("rates_after", &rates_after);
  m.def("rates_after_cut", &rates_after_cut);
  m.def("forced_in", &forced_in);
  m.def("after_refusal", [](bool lookup, bool dropped) {
    const Dropped found = after_refusal(lookup, dropped);
    return std::tuple(found.rate, found.earned, found.plain_ms);
  });
  m.def("eager_draft", &eager_draft);
  m.def("credit_after_beginning", &credit_after_beginning);
}
