// Verifiers under enumeration: the exact law of what the compiled code does.
#include "decode_bindings.h"
#include "decode_chance.h"
#include "decode_convert.h"

#include <optional>

#include "decode/verifier.h"
#include "sampling/candidates.h"
#include "sampling/fixed_math.h"

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

using Path = std::vector<TokenId>;
using Table = std::map<Path, std::vector<double>>;  // path -> probabilities of every token

Distribution law_at(const Table& table, const Path& path, bool sparse) {
  const std::vector<double>& probs = table.at(path);
  if (!sparse) return Distribution::from_probs(probs);
  std::vector<TokenId> tokens;
  std::vector<double> log_weights;
  for (std::size_t i = 0; i < probs.size(); ++i) {
    if (probs[i] <= 0.0) continue;
    tokens.push_back(static_cast<TokenId>(i));
    log_weights.push_back(fixed_log(probs[i]));
  }
  return Distribution::sparse(tokens, log_weights);
}

// The target's rows of one proposal.
class TableRows final : public TargetRows {
 public:
  TableRows(const Table& table, const DraftProposal& proposal, bool sparse)
      : table_(table), proposal_(proposal), sparse_(sparse) {}
  const Distribution& at(int row) override {
    auto found = rows_.find(row);
    if (found == rows_.end()) {
      Path path;
      for (int r = row; r >= 0; r = proposal_.parent(r)) {
        path.insert(path.begin(), proposal_.tokens[static_cast<std::size_t>(r)]);
      }
      found = rows_.emplace(row, law_at(table_, path, sparse_)).first;
    }
    return found->second;
  }

 private:
  const Table& table_;
  const DraftProposal& proposal_;
  bool sparse_;
  std::map<int, Distribution> rows_;
};

// A round's drafting rule: a comb of `gamma` depths with `branch` candidates each.
struct CombRule {
  int gamma;
  int branch;
  std::string mode;  // "sampled", "best" (chosen, with laws) or "plain" (chosen, without)
  bool sparse;
};

// The same steps as the draft model's. declared: the laws the proposal tells; drafts: the true
// ones.
DraftProposal draw_comb(const CombRule& rule, const Table& drafts, const Table& declared,
                        Chance& chance) {
  DraftProposal proposal;
  proposal.chosen = rule.mode != "sampled";
  Path path;
  std::int32_t parent = -1;
  for (int depth = 0; depth < rule.gamma; ++depth) {
    const Distribution law = law_at(drafts, path, rule.sparse);
    const std::vector<TokenId> tokens = proposal.chosen ? best_candidates(law, rule.branch)
                                                        : draw_candidates(law, rule.branch, chance);
    const std::int32_t first = proposal.size();
    for (const TokenId token : tokens) {
      if (rule.mode != "plain") {
        proposal.probs.push_back(token == tokens[0] ? law_at(declared, path, rule.sparse)
                                                    : Distribution());
      }
      proposal.tokens.push_back(token);
      if (rule.branch > 1) proposal.parents.push_back(parent);
    }
    parent = first;
    path.push_back(tokens[0]);
  }
  return proposal;
}

// Faults that tests must catch.
class BrokenVerifier final : public Verifier {
 public:
  explicit BrokenVerifier(const std::string& fault) : fault_(fault) {}
  std::string_view name() const override { return fault_; }
  VerifierTraits traits() const override { return {.trees = true}; }

 private:
  Verdict decide(const DraftProposal& proposal, TargetRows& rows, Chance& chance) const override {
    if (fault_.starts_with("block_")) return block(proposal, rows, chance);
    if (fault_.starts_with("comb_")) return comb(proposal, rows, chance);
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

  // Block verification; the residual without its scale, or every prefix decided by itself.
  Verdict block(const DraftProposal& proposal, TargetRows& rows, Chance& chance) const {
    const int n = proposal.size();
    std::vector<double> cover = {1.0};
    for (int i = 0; i < n; ++i) {
      const auto index = static_cast<std::size_t>(i);
      const TokenId token = proposal.tokens[index];
      const double ratio = rows.at(i - 1).prob(token) / proposal.probs[index].prob(token);
      cover.push_back(std::min(1.0, cover.back() * ratio));
    }
    int length = n;
    for (; length > 0; --length) {
      const double covered = cover[static_cast<std::size_t>(length)];
      double h = covered;
      if (length < n && fault_ != "block_own_coin_only") {
        const double mass =
            residual(rows.at(length - 1), proposal.probs[static_cast<std::size_t>(length)], covered)
                .mass;
        h = mass / (mass + 1.0 - covered);
      }
      if (chance.accept(h)) break;
    }
    Verdict verdict;
    for (int i = 0; i < length; ++i) verdict.accepted.push_back(i);
    verdict.next_row = length - 1;
    const Distribution& target = rows.at(length - 1);
    const double scale =
        fault_ == "block_unscaled_residual" ? 1.0 : cover[static_cast<std::size_t>(length)];
    verdict.next_token =
        length == n ? chance.draw(target)
                    : target.token(chance.draw(residual_weights(
                          target, proposal.probs[static_cast<std::size_t>(length)], scale)));
    return verdict;
  }

  // Recursive rejection over dense laws.
  Verdict comb(const DraftProposal& proposal, TargetRows& rows, Chance& chance) const {
    Verdict verdict;
    while (true) {
      const Distribution& target = rows.at(verdict.next_row);
      const auto children = children_of(proposal, verdict.next_row);
      std::vector<double> r(target.probs().begin(), target.probs().end());
      int hit = -1;
      std::vector<double> s(r.size());
      for (std::size_t c = 0; c < children.size() && hit < 0; ++c) {
        const auto child = static_cast<std::size_t>(children[c]);
        if (c == 0) {
          for (std::size_t i = 0; i < s.size(); ++i) {
            s[i] = proposal.probs[child].prob(static_cast<TokenId>(i));
          }
          if (fault_ == "comb_forgets_off_support") {
            for (std::size_t i = 0; i < r.size(); ++i) r[i] *= s[i] > 0.0 ? 1.0 : 0.5;
          }
        }
        const auto token = static_cast<std::size_t>(proposal.tokens[child]);
        if (chance.accept(r[token] / s[token])) {
          hit = children[c];
          break;
        }
        if (fault_ != "comb_target_residual") {
          for (std::size_t i = 0; i < r.size(); ++i) r[i] = std::max(0.0, r[i] - s[i]);
          const double mass = fixed_sum(r);
          for (double& x : r) x /= mass;
        }
        if (fault_ != "comb_full_draft_law") {
          s[token] = 0.0;
          const double left = fixed_sum(s);
          for (double& x : s) x /= left > 0.0 ? left : 1.0;
        }
      }
      if (hit < 0) {
        verdict.next_token = static_cast<TokenId>(chance.draw(r));
        return verdict;
      }
      verdict.accepted.push_back(hit);
      verdict.next_row = hit;
    }
  }

  std::string fault_;
};

using Outcome = std::pair<std::vector<std::int32_t>, TokenId>;  // accepted indices, next token

std::map<Outcome, double> verdict_law(const Verifier& verifier, const std::vector<TokenId>& tokens,
                                      const std::vector<std::int32_t>& parents,
                                      const std::vector<std::vector<double>>& draft_probs,
                                      const std::vector<std::vector<double>>& target_rows) {
  DraftProposal proposal{.tokens = tokens, .parents = parents, .probs = {}};
  for (const auto& row : draft_probs)
    proposal.probs.push_back(row.empty() ? Distribution() : Distribution::from_probs(row));
  FixedRows rows(target_rows);
  return enumerate([&](Chance& chance) {
    const Verdict v = verifier.verify(proposal, rows, chance);
    if (v.next_row != (v.accepted.empty() ? -1 : v.accepted.back()))
      throw std::logic_error("next_row");
    return Outcome(v.accepted, v.next_token);
  });
}

const Verifier& verifier_named(const std::string& name, std::optional<BrokenVerifier>& broken) {
  for (const Verifier* v : all_verifiers()) {
    if (v->name() == name) return *v;
  }
  return broken.emplace(name);
}

// Law of what one round emits, over the draft's draws and the verifier's.
std::vector<std::pair<Path, double>> round_law(const std::string& name, const CombRule& rule,
                                               const Table& targets, const Table& drafts,
                                               const std::optional<Table>& declared,
                                               bool sparse_target) {
  std::optional<BrokenVerifier> broken;
  const Verifier& verifier = verifier_named(name, broken);
  const auto law = enumerate([&](Chance& chance) {
    const DraftProposal proposal = draw_comb(rule, drafts, declared ? *declared : drafts, chance);
    TableRows rows(targets, proposal, sparse_target);
    const Verdict verdict = verifier.verify(proposal, rows, chance);
    Path emitted;
    std::int32_t at = -1;
    for (const std::int32_t row : verdict.accepted) {
      if (proposal.parent(row) != at) throw std::logic_error("accepted tokens that are no path");
      at = row;
      emitted.push_back(proposal.tokens[static_cast<std::size_t>(row)]);
    }
    if (verdict.next_row != at) throw std::logic_error("next_row");
    emitted.push_back(verdict.next_token);
    return emitted;
  });
  return {law.begin(), law.end()};
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
    std::optional<BrokenVerifier> broken;
    const auto law =
        verdict_law(verifier_named(name, broken), tokens, parents, draft_probs, target_rows);
    return std::vector<std::pair<Outcome, double>>(law.begin(), law.end());
  });
  // -> [(emitted tokens, probability)]
  m.def(
      "round_law",
      [](const std::string& name, int gamma, int branch, const std::string& mode,
         const Table& targets, const Table& drafts, const std::optional<Table>& declared,
         bool sparse_draft, bool sparse_target) {
        const CombRule rule{.gamma = gamma, .branch = branch, .mode = mode, .sparse = sparse_draft};
        return round_law(name, rule, targets, drafts, declared, sparse_target);
      },
      py::arg("verifier"), py::arg("gamma"), py::arg("branch"), py::arg("mode"), py::arg("targets"),
      py::arg("drafts"), py::arg("declared") = py::none(), py::arg("sparse_draft") = false,
      py::arg("sparse_target") = false);
}
