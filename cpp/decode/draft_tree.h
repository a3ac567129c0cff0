// A tree of candidates that a model proposes level by level.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/token.h"

namespace specdec {

struct TreeNode {
  TokenId token = -1;
  std::int32_t parent = -1;  // a node before this one; -1: the committed text
  int depth = 0;             // 0: follows the committed text
  double probability = 0.0;  // that the model gives the token behind its parent
  double reach = 0.0;        // and the whole path
};

// How far a tree is grown that somebody wants to see whole.
struct TreeBounds {
  int width = 1;         // nodes of a level that are gone on from, the best by reach
  int n_candidates = 1;  // behind each
  int depth = 1;
  double least = 0.0;  // reach below which nobody goes on
};

// What a tree is grown from. Rows are those of a pass of the model.
class TreeModel {
 public:
  using Candidates = std::vector<std::pair<TokenId, double>>;  // and what the model gives them

  virtual ~TreeModel() = default;
  // Behind a row of the last pass, best first.
  [[nodiscard]] virtual Candidates candidates(int row, int depth, int n) = 0;
  // Rows behind the committed text, in place of those fed before: n_known of them are the same
  // again. parents as in Batch. False: there is no room for them.
  [[nodiscard]] virtual bool feed(std::span<const TokenId> tokens,
                                  std::span<const std::int32_t> parents, int n_known) = 0;
  [[nodiscard]] virtual bool ends_text(TokenId token) const = 0;
};

// root_row: of the last pass, the one behind the committed text. Each level is fed together with
// those above it: a row sees its own path only, and its bits do not depend on the others.
[[nodiscard]] std::vector<TreeNode> grow_tree(TreeModel& model, int root_row,
                                              const TreeBounds& bounds);

}  // namespace specdec
