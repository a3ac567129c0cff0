// The drafters of a conversation or a request, and what they stand on.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/token.h"
#include "decode/control/controller.h"
#include "decode/drafter.h"
#include "decode/feature_cache.h"
#include "decode/token_cache.h"
#include "engine/head_scorer.h"
#include "engine/layer_skip_scorer.h"
#include "engine/model_scorer.h"
#include "engine/session_options.h"

namespace specdec {

class DrafterSet {
 public:
  // How the decoding loop is to see a scorer.
  using Seen = std::function<TokenScorer*(TokenScorer&)>;

  // What drafts beside the target; a draft model has a cache that holds draft_tokens, a head is a
  // fork of the one of head_origin or empty.
  struct Drafts {
    ModelScorer* model = nullptr;
    std::span<const TokenId> draft_tokens = {};
    HeadScorer* head = nullptr;
    const FeatureCache* head_origin = nullptr;
  };

  // All must outlive it. Drafters that keep what they learn go on with that of `origin` (empty: of
  // nobody).
  DrafterSet(const SessionOptions& options, ModelScorer& target, const Drafts& drafts,
             const Seen& seen = {}, std::span<Drafter* const> origin = {});

  [[nodiscard]] const std::vector<Drafter*>& list() const { return list_; }
  // For one that chooses among them.
  [[nodiscard]] std::vector<DrafterTraits> traits() const;
  // What the draft model's cache holds; null: there is no draft model.
  [[nodiscard]] TokenCache* draft_cache() { return draft_cache_.get(); }
  [[nodiscard]] const TokenCache* draft_cache() const { return draft_cache_.get(); }
  // Likewise of a head.
  [[nodiscard]] const FeatureCache* head_cache() const { return head_cache_.get(); }
  [[nodiscard]] int n_draft_layers() const { return layer_scorer_ ? layer_scorer_->n_layers() : 0; }
  // Gives those that keep what they learn to `kept` [list().size()], where the others stay empty.
  void release_keepers(std::vector<std::unique_ptr<Drafter>>& kept);

 private:
  std::unique_ptr<LayerSkipScorer> layer_scorer_;
  std::unique_ptr<TokenCache> draft_cache_, layer_cache_;
  std::unique_ptr<FeatureCache> head_cache_;
  std::vector<std::unique_ptr<Drafter>> drafters_;
  std::vector<Drafter*> list_;
};

}  // namespace specdec
