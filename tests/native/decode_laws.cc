// Verifiers under enumeration: the exact law of what the compiled code does.
#include "decode_bindings.h"
#include "decode_chance.h"
#include "decode_convert.h"

#include "decode/verifier.h"

namespace py = pybind11;
using namespace specdec;
using namespace specdec::testing;

namespace {

class FixedRows final : public TargetRows {
 public:
  explicit FixedRows(const std::vector<std::vector<double>>& rows) {
    for (const auto& row : rows) rows_.push_back(Distribution::from_probs(row));
  }
  const Distribution& at(int row) override { return rows_.at(static_cast<std::size_t>(row + 1)); }

 private:
  std::vector<Distribution> rows_;
};

// Faults that tests must catch.
class BrokenVerifier final : public Verifier {
 public:
  explicit BrokenVerifier(const std::string& fault) : fault_(fault) {}
  std::string_view name() const override { return fault_; }
  VerifierTraits traits() const override { return {}; }
  Verdict verify(const DraftProposal& proposal, TargetRows& rows, Chance& chance) const override {
    Verdict verdict;
    for (int i = 0; i < proposal.size(); ++i) {
      const auto index = static_cast<std::size_t>(i);
      const TokenId token = proposal.tokens[index];
      const Distribution& target = rows.at(i - 1);
      const Distribution& draft = proposal.probs[index];
      const double ratio = fault_ == "always_accept" ? 1.0 : target.prob(token) / draft.prob(token);
      if (!chance.accept(ratio)) {
        verdict.next_token = fault_ == "missing_residual"
                                 ? chance.draw(target)
                                 : target.token(chance.draw(residual_weights(target, draft)));
        return verdict;
      }
      verdict.accepted.push_back(i);
      verdict.next_row = i;
    }
    const int bonus_row = fault_ == "bonus_row" ? verdict.next_row - 1 : verdict.next_row;
    verdict.next_token = chance.draw(rows.at(std::max(bonus_row, -1)));
    return verdict;
  }

 private:
  std::string fault_;
};

using Outcome = std::pair<std::vector<std::int32_t>, TokenId>;  // accepted indices, next token

std::map<Outcome, double> verdict_law(const Verifier& verifier, const std::vector<TokenId>& tokens,
                                      const std::vector<std::int32_t>& parents,
                                      const std::vector<std::vector<double>>& draft_probs,
                                      const std::vector<std::vector<double>>& target_rows) {
  DraftProposal proposal{.tokens = tokens, .parents = parents, .probs = {}};
  for (const auto& row : draft_probs) proposal.probs.push_back(Distribution::from_probs(row));
  FixedRows rows(target_rows);
  return enumerate([&](Chance& chance) {
    const Verdict v = verifier.verify(proposal, rows, chance);
    if (v.next_row != (v.accepted.empty() ? -1 : v.accepted.back()))
      throw std::logic_error("next_row");
    return Outcome(v.accepted, v.next_token);
  });
}

}  // namespace

void bind_laws(py::module_& m) {
  m.def("verifiers", [] {
    py::dict all;
    for (const Verifier* v : all_verifiers()) {
      const VerifierTraits t = v->traits();
      py::dict traits;
      traits["lossless"] = t.lossless;
      traits["trees"] = t.trees;
      traits["greedy_only"] = t.greedy_only;
      traits["reads_draft_probs"] = t.reads_draft_probs;
      traits["reads_top_k"] = t.reads_top_k;
      all[py::str(std::string(v->name()))] = traits;
    }
    return all;
  });
  m.def("resolve_verifier", [](const std::string& name, double temperature) {
    SamplingParams params;
    params.temperature = temperature;
    return std::string(resolve_verifier(name, params).name());
  });
  // -> [((accepted indices, next token), probability)]
  m.def("verdict_law", [](const std::string& name, const std::vector<TokenId>& tokens,
                          const std::vector<std::int32_t>& parents,
                          const std::vector<std::vector<double>>& draft_probs,
                          const std::vector<std::vector<double>>& target_rows) {
    std::vector<std::pair<Outcome, double>> result;
    const auto add = [&](const Verifier& verifier) {
      for (const auto& item : verdict_law(verifier, tokens, parents, draft_probs, target_rows)) {
        result.push_back(item);
      }
    };
    for (const Verifier* v : all_verifiers()) {
      if (v->name() == name) {
        add(*v);
        return result;
      }
    }
    add(BrokenVerifier(name));
    return result;
  });
}
