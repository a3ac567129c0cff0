#include "kv/prefix_tree.h"

#include <algorithm>
#include <new>
#include <utility>

#include "base/error.h"

namespace specdec {
namespace {

// Caches below the last common token that are looked at: where states or windows are forgotten one
// may reach further back than another.
constexpr int kMostLooked = 16;

}  // namespace

struct PrefixTree::Node {
  Node* parent = nullptr;
  std::vector<TokenId> edge;  // tokens from the parent to here
  std::map<TokenId, std::unique_ptr<Node>> children;
  std::optional<KvCache> cache;  // of all tokens from the root to here
  std::uint64_t last_use = 0;
};

PrefixTree::PrefixTree() : root_(std::make_unique<Node>()) {}
PrefixTree::~PrefixTree() = default;

void PrefixTree::offer(Node& node, int n_common, Match& best, Node*& best_node) {
  if (!node.cache) return;
  const int length = node.cache->reachable(std::min(n_common, node.cache->length()));
  if (length <= best.length) return;
  best = {.cache = &*node.cache, .length = length};
  best_node = &node;
}

PrefixTree::Match PrefixTree::find(std::span<const TokenId> tokens) {
  Match best;
  Node* best_node = nullptr;
  Node* at = root_.get();
  int n_common = 0;
  for (std::span<const TokenId> rest = tokens;;) {
    offer(*at, n_common, best, best_node);
    const auto next = rest.empty() ? at->children.end() : at->children.find(rest[0]);
    if (next == at->children.end()) break;
    at = next->second.get();
    const auto differs = std::mismatch(at->edge.begin(), at->edge.end(), rest.begin(), rest.end());
    const auto n = static_cast<std::size_t>(differs.first - at->edge.begin());
    n_common += static_cast<int>(n);
    rest = rest.subspan(n);
    if (n < at->edge.size()) break;
  }
  // Whatever lies below begins with these tokens too.
  std::vector<Node*> below{at};
  for (int n_looked = 0; !below.empty() && n_looked < kMostLooked && best.length < n_common;
       ++n_looked) {
    Node* const node = below.back();
    below.pop_back();
    offer(*node, n_common, best, best_node);
    for (const auto& [token, child] : node->children) below.push_back(child.get());
  }
  if (best_node != nullptr) touch(*best_node);
  return best;
}

// The node of these tokens, made where it is missing. Where memory runs out, nothing has changed,
// or a node that leads nowhere is left.
PrefixTree::Node& PrefixTree::descend(std::span<const TokenId> tokens) {
  Node* at = root_.get();
  while (!tokens.empty()) {
    const auto found = at->children.find(tokens[0]);
    if (found == at->children.end()) {
      auto made = std::make_unique<Node>();
      made->parent = at;
      made->edge.assign(tokens.begin(), tokens.end());
      return *at->children.emplace(tokens[0], std::move(made)).first->second;
    }
    std::unique_ptr<Node>& slot = found->second;
    const std::vector<TokenId>& edge = slot->edge;
    const auto differs = std::mismatch(edge.begin(), edge.end(), tokens.begin(), tokens.end());
    const auto n = differs.first - edge.begin();
    if (n < static_cast<std::ptrdiff_t>(edge.size())) {  // split
      auto middle = std::make_unique<Node>();
      middle->parent = at;
      middle->edge.assign(edge.begin(), edge.begin() + n);
      std::unique_ptr<Node>& place = middle->children[edge[static_cast<std::size_t>(n)]];
      // From here on nothing throws.
      slot->edge.erase(slot->edge.begin(), slot->edge.begin() + n);
      slot->parent = middle.get();
      place = std::move(slot);
      slot = std::move(middle);
    }
    at = slot.get();
    tokens = tokens.subspan(static_cast<std::size_t>(n));
  }
  return *at;
}

void PrefixTree::touch(Node& node) {
  by_use_.emplace(n_uses_ + 1, &node);  // first, because it may throw
  by_use_.erase(node.last_use);
  node.last_use = ++n_uses_;
}

void PrefixTree::drop(Node& node) {
  by_use_.erase(node.last_use);
  node.cache.reset();
}

// Removes nodes that lead nowhere, and joins those between which nothing branches.
void PrefixTree::tidy(Node* node) noexcept {
  while (node != root_.get() && !node->cache && node->children.empty()) {
    Node* const parent = node->parent;
    parent->children.erase(node->edge[0]);
    node = parent;
  }
  if (node == root_.get() || node->cache || node->children.size() != 1) return;
  std::vector<TokenId> edge;
  try {
    const std::vector<TokenId>& below = node->children.begin()->second->edge;
    edge.reserve(node->edge.size() + below.size());
    edge.insert(edge.end(), node->edge.begin(), node->edge.end());
    edge.insert(edge.end(), below.begin(), below.end());
  } catch (const std::bad_alloc&) {
    return;  // one more node on the way
  }
  std::unique_ptr<Node> child = std::move(node->children.begin()->second);
  child->edge = std::move(edge);
  child->parent = node->parent;
  std::unique_ptr<Node>& slot = node->parent->children.find(child->edge[0])->second;
  slot = std::move(child);
}

void PrefixTree::insert(std::span<const TokenId> tokens, KvCache cache) {
  const auto length = static_cast<int>(tokens.size());
  SPECDEC_CHECK(cache.length() == length);
  if (length == 0) return;
  if (find(tokens).length == length) return;  // and that one counts as used
  Node& node = descend(tokens);
  try {
    touch(node);
  } catch (...) {
    if (!node.cache) tidy(&node);
    throw;
  }
  node.cache.emplace(std::move(cache));
  int above = length;
  for (Node* at = &node; at != root_.get();) {
    above -= static_cast<int>(at->edge.size());
    Node* const parent = at->parent;
    const bool served = parent->cache && node.cache->reachable(above) == above;
    if (served) {
      drop(*parent);
      tidy(parent);
      // What was between has become part of this edge or of the next one.
      at = &node;
      above = length;
      continue;
    }
    at = parent;
  }
}

bool PrefixTree::evict() {
  if (by_use_.empty()) return false;
  Node& node = *by_use_.begin()->second;
  drop(node);
  tidy(&node);
  return true;
}

void PrefixTree::clear() {
  by_use_.clear();
  root_->children.clear();
}

}  // namespace specdec
