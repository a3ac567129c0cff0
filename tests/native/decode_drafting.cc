// Drafting alone, without a target: what a controller learns of passes that were made up.
#include <pybind11/stl.h>

#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "decode/drafting.h"
#include "decode_bindings.h"
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
    return next.size();
  }
  std::vector<TokenId> forced(std::span<const TokenId>) override { return tokens; }

  std::vector<TokenId> tokens;
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

}  // namespace

void bind_drafting(py::module_& m) { m.def("rates_after", &rates_after); }
