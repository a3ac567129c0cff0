#include "engine/drafter_set.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "decode/memory_lookup.h"
#include "engine/text_memory.h"

namespace specdec {
namespace {

// With the lengths that all the others were told; where no one weighs its drafts, from matches only
// that are likely to go on.
std::unique_ptr<Drafter> memory_lookup(const SessionOptions& options) {
  constexpr int kSureMatch = 8;
  MemoryLookupOptions lookup;
  const DraftLengths& first = draft_lengths(options.drafters.front());
  const bool same = std::all_of(options.drafters.begin(), options.drafters.end(),
                                [&](const DrafterOptions& other) {
                                  const DraftLengths& o = draft_lengths(other);
                                  return o.draft_max == first.draft_max &&
                                         o.draft_min == first.draft_min && o.gamma == first.gamma;
                                });
  if (same) lookup.lengths = first;
  if (!options.adaptive) lookup.min_match = kSureMatch;
  return make_memory_lookup(lookup, options.memory->texts());
}

}  // namespace

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
  const auto add = [&](std::unique_ptr<Drafter> drafter) {
    list_.push_back(drafter.get());
    drafters_.push_back(std::move(drafter));
  };
  // Among those of which one is chosen the last, so that the text at hand wins ties; where the
  // first one that has something to say drafts, that one.
  const bool leads = options.memory != nullptr && !options.adaptive && !options.drafters.empty();
  if (leads) add(memory_lookup(options));
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
    const std::size_t at = list_.size();
    if (at < origin.size() && origin[at] != nullptr) made = origin[at]->fork();
    if (made == nullptr) made = make_drafter(drafter, models);
    add(std::move(made));
  }
  if (options.memory != nullptr && options.adaptive) add(memory_lookup(options));
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
