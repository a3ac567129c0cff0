// Caches of texts that are over, found again by how another text begins: a radix tree of their
// tokens. Pages are shared with whoever goes on from one.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/token.h"
#include "kv/kv_cache.h"

namespace specdec {

// Not thread-safe.
class PrefixTree {
 public:
  PrefixTree();
  ~PrefixTree();
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  struct Match {
    const KvCache* cache = nullptr;  // null: none
    int length = 0;                  // of it, so many positions hold the text's first tokens, and
                                     // truncate() can go there
  };
  // The cache that has most of `tokens`, and counts as used now. Valid until the next change.
  [[nodiscard]] Match find(std::span<const TokenId> tokens);
  // Keeps a cache that holds exactly `tokens`, unless another one can be cut to that; those that it
  // can be cut to are dropped.
  void insert(std::span<const TokenId> tokens, KvCache cache);
  // Drops the cache that was used longest ago. False: there is none.
  bool evict();
  void clear();

  [[nodiscard]] std::size_t size() const { return by_use_.size(); }

 private:
  struct Node;
  [[nodiscard]] Node& descend(std::span<const TokenId> tokens);
  void touch(Node& node);
  void drop(Node& node);
  void tidy(Node* node) noexcept;
  static void offer(Node& node, int n_common, Match& best, Node*& best_node);

  std::unique_ptr<Node> root_;
  std::map<std::uint64_t, Node*> by_use_;  // those with a cache, by their last use
  std::uint64_t n_uses_ = 0;
};

}  // namespace specdec
