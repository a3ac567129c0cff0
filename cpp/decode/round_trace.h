// What every drafter would have said behind every token of a text, and what passes took: a file
// from which rules for drafts are tried without a model (tools/simulate_rounds.py).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/token.h"
#include "decode/control/controller.h"
#include "decode/draft_tree.h"
#include "sampling/proposal.h"

namespace specdec {

// JSON lines: one {"request": ...}, then one for each token of its text. Nothing is drafted
// meanwhile: passes are plain, so that each drafter is asked behind every token.
class RoundTrace {
 public:
  // Written to when a request ends; several processes may append to one file.
  explicit RoundTrace(std::string path) : path_(std::move(path)) {}

  void begin_request(int n_prompt, double temperature, Controller& controller);
  void begin_pass(int n_committed);
  void add_lookup(std::string_view name, const DraftProposal& proposal, double ms);
  void add_tree(std::string_view name, std::span<const TreeNode> nodes, double ms);
  void end_pass(std::span<const TokenId> fresh, double verify_ms);
  // Throws Error(kIo) where the file cannot be written.
  void end_request();

  // The trees that are asked for.
  static constexpr TreeBounds kBounds = {.width = 4, .n_candidates = 4, .depth = 5, .least = 0.02};

 private:
  void begin_source(std::string_view name, double ms);

  std::string path_;
  std::string text_;
  bool first_source_ = true;
};

}  // namespace specdec
