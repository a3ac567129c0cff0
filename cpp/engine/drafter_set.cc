#include "engine/drafter_set.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

namespace specdec {

DrafterSet::DrafterSet(const SessionOptions& options, ModelScorer& target, const Drafts& drafts,
                       const Seen& seen, std::span<Drafter* const> origin) {
  const auto as_seen = [&](TokenScorer& scorer) { return seen ? seen(scorer) : &scorer; };
  if (drafts.model != nullptr)
    draft_cache_ = std::make_unique<TokenCache>(*as_seen(*drafts.model), drafts.draft_tokens);
  if (drafts.head != nullptr) {
    head_cache_ = drafts.head_origin != nullptr
                      ? std::make_unique<FeatureCache>(*drafts.head, *drafts.head_origin)
                      : std::make_unique<FeatureCache>(*drafts.head);
  }
  DrafterModels models{.draft = draft_cache_.get(), .features = head_cache_.get()};
  for (std::size_t i = 0; i < options.drafters.size(); ++i) {
    const DrafterOptions& drafter = options.drafters[i];
    if (const auto* layers = std::get_if<LayerSkipOptions>(&drafter)) {
      const int n_layers = layers->n_layers;
      layer_scorer_ = std::make_unique<LayerSkipScorer>(
          target, n_layers != 0 ? n_layers : std::max(target.n_layers() / 4, 1));
      layer_cache_ = std::make_unique<TokenCache>(*as_seen(*layer_scorer_));
      models.layers = layer_cache_.get();
    }
    std::unique_ptr<Drafter> made;
    if (i < origin.size() && origin[i] != nullptr) made = origin[i]->fork();
    if (made == nullptr) made = make_drafter(drafter, models);
    list_.push_back(made.get());
    drafters_.push_back(std::move(made));
  }
}

std::vector<DrafterTraits> DrafterSet::traits() const {
  std::vector<DrafterTraits> traits;
  for (Drafter* drafter : list_) {
    traits.push_back({.name = std::string(drafter->name()), .lookup = drafter->model() == nullptr});
  }
  return traits;
}

void DrafterSet::release_keepers(std::vector<std::unique_ptr<Drafter>>& kept) {
  kept.resize(drafters_.size());
  for (std::size_t i = 0; i < drafters_.size(); ++i)
    if (drafters_[i] != nullptr && drafters_[i]->keeps()) kept[i] = std::move(drafters_[i]);
}

}  // namespace specdec
