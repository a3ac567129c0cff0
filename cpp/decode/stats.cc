#include "decode/stats.h"

namespace specdec {

void TokenLedger::begin_pass(int n_drafted, const std::vector<int>& per_depth) {
  passes_.push_back(n_drafted);
  if (drafted_per_depth_.size() < per_depth.size()) drafted_per_depth_.resize(per_depth.size());
  for (std::size_t i = 0; i < per_depth.size(); ++i) drafted_per_depth_[i] += per_depth[i];
}

void TokenLedger::count(std::size_t n_kept, DecodeStats& stats) const {
  stats.rounds = stats.plain_steps = stats.drafted = stats.accepted = stats.accepted_cut =
      stats.cut = 0;
  for (const int n_drafted : passes_) {
    ++(n_drafted > 0 ? stats.rounds : stats.plain_steps);
    stats.drafted += n_drafted;
  }
  stats.drafted_per_position = drafted_per_depth_;
  stats.accepted_per_position.assign(drafted_per_depth_.size(), 0);
  std::vector<std::size_t> accepted_of_pass(passes_.size());
  std::vector<bool> own_emitted(passes_.size());
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const Token& token = tokens_[i];
    const auto pass = static_cast<std::size_t>(token.pass);
    if (i >= n_kept) {
      stats.accepted_cut += token.draft_depth > 0 ? 1 : 0;
    } else if (token.draft_depth > 0) {
      ++stats.accepted;
      ++stats.accepted_per_position[static_cast<std::size_t>(token.draft_depth - 1)];
      ++accepted_of_pass[pass];
    } else {
      own_emitted[pass] = true;
    }
  }
  for (const Token& token : unused_) stats.accepted_cut += token.draft_depth > 0 ? 1 : 0;
  stats.accepted_histogram.assign(drafted_per_depth_.empty() ? 0 : drafted_per_depth_.size() + 1,
                                  0);
  for (std::size_t pass = 0; pass < passes_.size(); ++pass) {
    if (!own_emitted[pass]) ++stats.cut;
    if (passes_[pass] > 0) ++stats.accepted_histogram[accepted_of_pass[pass]];
  }
  stats.emitted = static_cast<std::int64_t>(n_kept);
}

}  // namespace specdec
