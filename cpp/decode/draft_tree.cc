#include "decode/draft_tree.h"

#include <algorithm>
#include <numeric>

namespace specdec {
namespace {

// The best by reach from node `first` on, in the order of the nodes.
std::vector<std::int32_t> widest(const std::vector<TreeNode>& nodes, std::size_t first,
                                 const TreeBounds& bounds) {
  std::vector<std::int32_t> best(nodes.size() - first);
  std::iota(best.begin(), best.end(), static_cast<std::int32_t>(first));
  const auto reach = [&](std::int32_t i) { return nodes[static_cast<std::size_t>(i)].reach; };
  std::stable_sort(best.begin(), best.end(), [&](auto a, auto b) { return reach(a) > reach(b); });
  best.resize(std::min(best.size(), static_cast<std::size_t>(bounds.width)));
  while (!best.empty() && reach(best.back()) < bounds.least) best.pop_back();
  std::sort(best.begin(), best.end());
  return best;
}

}  // namespace

std::vector<TreeNode> grow_tree(TreeModel& model, int root_row, const TreeBounds& bounds) {
  std::vector<TreeNode> nodes;
  const auto add = [&](int row, std::int32_t parent) {
    TreeNode from{.depth = -1, .reach = 1.0};
    if (parent >= 0) from = nodes[static_cast<std::size_t>(parent)];
    const int depth = from.depth + 1;
    for (const auto& [token, probability] : model.candidates(row, depth, bounds.n_candidates)) {
      nodes.push_back({.token = token,
                       .parent = parent,
                       .depth = depth,
                       .probability = probability,
                       .reach = from.reach * probability});
    }
  };
  std::vector<TokenId> tokens;
  std::vector<std::int32_t> fed, parents;  // of each row: its node, and the row that it follows
  add(root_row, -1);
  std::size_t first = 0;
  for (int depth = 1; depth < bounds.depth; ++depth) {
    const std::size_t n_known = fed.size();
    for (const std::int32_t i : widest(nodes, first, bounds)) {
      const TreeNode& node = nodes[static_cast<std::size_t>(i)];
      if (model.ends_text(node.token)) continue;
      const auto at = std::find(fed.begin(), fed.end(), node.parent);
      parents.push_back(node.parent < 0 ? -1 : static_cast<std::int32_t>(at - fed.begin()));
      tokens.push_back(node.token);
      fed.push_back(i);
    }
    if (fed.size() == n_known || !model.feed(tokens, parents, static_cast<int>(n_known))) break;
    first = nodes.size();
    for (std::size_t row = n_known; row < fed.size(); ++row) add(static_cast<int>(row), fed[row]);
  }
  return nodes;
}

}  // namespace specdec
